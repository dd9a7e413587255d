// Functions and types of PyTorch, found at run time: no header of PyTorch is included, and it is never imported.
#pragma once

#include <pybind11/pybind11.h>

namespace ropewalk::python {

namespace py = pybind11;

/// Objects of an imported PyTorch, never released.
struct torch_module {
    PyObject *tensor_type, *parameter_type, *float32, *float16, *bfloat16, *int32, *int64;
    PyObject *empty, *empty_like, *get_num_threads, *is_grad_enabled, *increment_version, *is_tracing, *forward_ad;
    PyObject *dispatch_modes, *transform, *raw_stream;  ///< private functions; null if this PyTorch lacks them
};

/// Null until PyTorch is imported completely.
const torch_module* loaded_torch();

/// True if operators are recorded or replaced by a dispatch mode (fake tensors, make_fx) or a trace.
bool torch_records();

/// True if a dispatch mode, trace or transform is active, which must see every operator. A one-token call takes 2.5 us
/// without the operators and 8.8 us through them.
bool torch_observes();

/// True for a torch.Tensor or an instance of a derived class.
bool is_torch_tensor(py::handle object);

/// True for a torch.Tensor or a Parameter, but none of a derived class.
bool is_plain_tensor(py::handle object);

/// True for a tensor that requires grad while autograd is recording.
bool wants_gradient(py::handle tensor);

/// True for a tensor whose call must go through an operator: it wants a gradient, or it is of a subclass, which has no
/// memory of its own to point at.
bool needs_operator(py::handle object);

/// Tells autograd that the tensors among q and k have been written.
void count_write(py::handle q, py::handle k);

/// Takes a new reference, or throws the Python error if it is null.
inline py::object checked(PyObject* result) {
    if (result == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(result);
}

// Calls without pybind11's tuples of arguments.
inline py::object call(PyObject* function) { return checked(PyObject_CallNoArgs(function)); }
inline py::object call(py::handle object, PyObject* method) {
    return checked(PyObject_CallMethodNoArgs(object.ptr(), method));
}
inline py::object call_with(PyObject* function, py::handle argument) {
    return checked(PyObject_CallOneArg(function, argument.ptr()));
}
inline py::object attribute(py::handle object, PyObject* name) { return checked(PyObject_GetAttr(object.ptr(), name)); }

}  // namespace ropewalk::python
