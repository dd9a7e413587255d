// PyTorch, looked at from outside: without its headers and without ever importing it.
#pragma once

#include <pybind11/pybind11.h>

namespace ropewalk::python {

namespace py = pybind11;

/// What the bindings need of a torch that somebody else has imported. Held for good, so never released.
struct torch_module {
    PyObject *tensor_type, *float32, *float16, *bfloat16, *int32, *int64;
    PyObject *empty, *empty_like, *get_num_threads, *is_grad_enabled;
    PyObject *parameter_type, *increment_version;
};

/// Null while nobody has imported torch.
const torch_module* loaded_torch();

/// Whether the object is a torch tensor, or an instance of a class derived from it.
bool is_torch_tensor(py::handle object);

}  // namespace ropewalk::python
