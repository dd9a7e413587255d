// PyTorch, looked at from outside: without its headers and without ever importing it.
#pragma once

#include <pybind11/pybind11.h>

namespace ropewalk::python {

namespace py = pybind11;

/// The C functions by which a library shows its tensors: DLPackExchangeAPI of DLPack 1.3.
struct exchange_table;

/// What the bindings need of a torch that somebody else has imported. Held for good, so never released.
struct torch_module {
    PyObject *tensor_type, *float32, *float16, *bfloat16, *int32, *int64;
    PyObject *empty, *empty_like, *get_num_threads, *is_grad_enabled;
    PyObject *parameter_type, *increment_version, *forward_ad;
    PyObject *dispatch_modes, *is_tracing, *transform;  ///< null where this torch does not know them
    const exchange_table* exchange;                     ///< null before torch 2.10
};

/// Null while nobody has imported torch.
const torch_module* loaded_torch();

/// Whether operators are recorded or replaced: by a mode (of fake tensors, of a tracer) or a trace.
bool torch_records();

/// Whether somebody wants to see what torch does, who must not miss a kernel that runs without it: torch_records(), a
/// transform of torch.func, or derivatives in forward mode.
bool torch_listens();

/// The table of a class, null where it has none of a version that is known here.
const exchange_table* exchange_of(PyObject* type);

/// Whether the object is a torch tensor, or an instance of a class derived from it.
bool is_torch_tensor(py::handle object);

}  // namespace ropewalk::python
