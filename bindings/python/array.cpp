#include "array.hpp"

#include <cmath>

#include <ropewalk/core/error.hpp>

namespace ropewalk::python {

namespace {

/// Attribute names, made once.
struct names {
    PyObject* data_ptr = PyUnicode_InternFromString("data_ptr");
    PyObject* shape = PyUnicode_InternFromString("shape");
    PyObject* stride = PyUnicode_InternFromString("stride");
    PyObject* dtype = PyUnicode_InternFromString("dtype");
    PyObject* is_cpu = PyUnicode_InternFromString("is_cpu");
    PyObject* is_cuda = PyUnicode_InternFromString("is_cuda");
    PyObject* get_device = PyUnicode_InternFromString("get_device");
    PyObject* is_neg = PyUnicode_InternFromString("is_neg");
    PyObject* array_struct = PyUnicode_InternFromString("__array_struct__");
    PyObject* dlpack = PyUnicode_InternFromString("__dlpack__");
};
const names& name_of() {
    static const names all;
    return all;
}

void read_tuple(py::handle tuple, std::array<std::int64_t, array::most_axes>& values) {
    for (int i = 0; i < PyTuple_GET_SIZE(tuple.ptr()); ++i) {
        values[static_cast<std::size_t>(i)] = PyLong_AsLongLong(PyTuple_GET_ITEM(tuple.ptr(), i));
    }
    if (PyErr_Occurred() != nullptr) throw py::error_already_set();
}

void check_axes(py::ssize_t axes, const char* name) {
    RW_EXPECTS(axes <= array::most_axes, "{} has {} axes", name, axes);
}

number torch_type(PyObject* dtype, const torch_module& torch) {
    if (dtype == torch.float32) return number::f32;
    if (dtype == torch.bfloat16) return number::bf16;
    if (dtype == torch.float16) return number::f16;
    if (dtype == torch.int64) return number::i64;
    if (dtype == torch.int32) return number::i32;
    return number::other;
}

int torch_device(py::handle tensor, const char* name) {
    const names& n = name_of();
    if (attribute(tensor, n.is_cpu).ptr() == Py_True) return array::host;
    RW_EXPECTS(tensor.attr("is_meta").ptr() != Py_True, "{} is on the device meta, where tensors hold no numbers",
               name);
    RW_EXPECTS(attribute(tensor, n.is_cuda).ptr() == Py_True,
               "{} is on the device {}, and ropewalk computes on CPUs and CUDA devices: pass {}.cpu()", name,
               std::string(py::str(tensor.attr("device"))), name);
    return call(tensor, n.get_device).cast<int>();
}

bool is_negated(py::handle tensor) { return call(tensor, name_of().is_neg).ptr() == Py_True; }

array read_torch(py::handle tensor, const char* name) {
    const names& n = name_of();
    const torch_module& torch = *loaded_torch();
    array a;
    a.origin = array::library::torch;
    a.source = tensor;
    if (torch.exchange != nullptr && read_exchanged(tensor, *torch.exchange, a) && !is_negated(tensor)) return a;
    // By attributes: before torch 2.10, and for words about what is refused.
    a.device = torch_device(tensor, name);
    try {
        const py::object shape = attribute(tensor, n.shape);
        check_axes(PyTuple_GET_SIZE(shape.ptr()), name);
        a.axes = static_cast<int>(PyTuple_GET_SIZE(shape.ptr()));
        read_tuple(shape, a.shape);
        read_tuple(call(tensor, n.stride), a.strides);
        a.data = torch_data(tensor);
        RW_EXPECTS(!is_negated(tensor), "{} is a lazy negation: pass {}.resolve_neg()", name, name);
    } catch (py::error_already_set& problem) {
        // Nested tensors have no shape; sparse and traced ones no memory to point at.
        detail::fail(
            "{} has no strided memory, like sparse, nested and traced tensors and those inside torch.vmap (which is "
            "not needed: a batch is an axis of q and k): {}",
            name, std::string(py::str(problem.value())));
    }
    a.type = torch_type(attribute(tensor, n.dtype).ptr(), torch);
    return a;
}

/// What NumPy's `__array_struct__` points at: a layout that no version of NumPy has changed.
struct array_interface {
    int two;
    int axes;
    char kind;
    int item_size;
    int flags;
    Py_intptr_t* shape;
    Py_intptr_t* strides;  // bytes
    void* data;
    PyObject* description;
};
constexpr int native_byte_order = 0x200, writable = 0x400;

/// NumPy has no bfloat16; the one of ml_dtypes, which JAX uses too, reaches it as two opaque bytes.
bool is_bfloat16(py::handle array_object) {
    static PyObject* known = nullptr;  // the last dtype that was one, held for good
    const py::object dtype = attribute(array_object, name_of().dtype);
    if (dtype.ptr() == known) return true;
    if (std::string(py::str(dtype.attr("name"))) != "bfloat16") return false;
    known = dtype.inc_ref().ptr();
    return true;
}

number numpy_type(const array_interface& raw, py::handle array_object) {
    const bool native = (raw.flags & native_byte_order) != 0;
    if (raw.kind == 'f' && native)
        return raw.item_size == 4 ? number::f32 : raw.item_size == 2 ? number::f16 : number::other;
    if (raw.kind == 'i' && native)
        return raw.item_size == 8 ? number::i64 : raw.item_size == 4 ? number::i32 : number::other;
    return raw.kind == 'V' && raw.item_size == 2 && is_bfloat16(array_object) ? number::bf16 : number::other;
}

array read_numpy(py::handle object, const py::object& capsule, const char* name) {
    const auto* const raw = static_cast<const array_interface*>(PyCapsule_GetPointer(capsule.ptr(), nullptr));
    if (raw == nullptr) throw py::error_already_set();
    check_axes(raw->axes, name);
    array a;
    a.data = raw->data;
    a.source = object;
    a.axes = raw->axes;
    a.writable = (raw->flags & writable) != 0;
    a.type = numpy_type(*raw, object);
    for (int i = 0; i < raw->axes; ++i) {
        const auto axis = static_cast<std::size_t>(i);
        a.shape[axis] = raw->shape[i];
        RW_EXPECTS(a.type == number::other || raw->strides[i] % raw->item_size == 0,
                   "{} has a stride of {} bytes along axis {}, no multiple of its {} bytes an element", name,
                   raw->strides[i], i, raw->item_size);
        a.strides[axis] = raw->item_size == 0 ? 0 : raw->strides[i] / raw->item_size;
    }
    return a;
}

std::string list(const std::array<std::int64_t, array::most_axes>& values, int count) {
    std::string text = "[";
    for (int i = 0; i < count; ++i) text += (i == 0 ? "" : ", ") + std::to_string(values[static_cast<std::size_t>(i)]);
    return text + "]";
}

}  // namespace

void* torch_data(py::handle tensor) {
    const exchange_table* const exchange = loaded_torch()->exchange;
    if (array a; exchange != nullptr && read_exchanged(tensor, *exchange, a)) return a.data;
    return PyLong_AsVoidPtr(call(tensor, name_of().data_ptr).ptr());
}

bool is_array(py::handle object) {
    return is_torch_tensor(object) || PyObject_HasAttr(object.ptr(), name_of().array_struct) != 0 ||
           PyObject_HasAttr(object.ptr(), name_of().dlpack) != 0;
}

array read_array(py::handle object, const char* name) {
    if (is_torch_tensor(object)) return read_torch(object, name);
    const names& n = name_of();
    if (PyType_Check(object.ptr()) == 0) {  // a class has the attributes of its arrays
        if (PyObject* const capsule = PyObject_GetAttr(object.ptr(), n.array_struct)) {
            return read_numpy(object, py::reinterpret_steal<py::object>(capsule), name);
        }
        PyErr_Clear();
        if (PyObject_HasAttr(object.ptr(), n.dlpack) != 0) return read_dlpack(object, name);
    }
    throw py::type_error(
        detail::format("ropewalk: {} must be a NumPy array, a PyTorch tensor or an object with __dlpack__, got {}",
                       name, Py_TYPE(object.ptr())->tp_name));
}

std::string place_of(const array& a) { return a.on_host() ? "the CPU" : "cuda:" + std::to_string(a.device); }

void check_place(const array& a, const char* name, const array& like) {
    RW_EXPECTS(a.device == like.device, "{} is on {}, and the call runs on {}", name, place_of(a), place_of(like));
}

void check_reach(const array& a, const char* name) {
    constexpr double most = 0x1p60;
    double reach = 0;
    for (int i = 0; i < a.axes; ++i) {
        const auto axis = static_cast<std::size_t>(i);
        if (a.shape[axis] > 1)
            reach += static_cast<double>(a.shape[axis]) * std::fabs(static_cast<double>(a.strides[axis]));
    }
    RW_EXPECTS(reach <= most || a.is_empty(), "{}: the strides lead further than 2^60 elements", describe(a, name));
}

std::string describe(const array& a, const char* name) {
    const bool typed = py::hasattr(a.source, "dtype");
    return detail::format(
        "{} {} {} of strides {}", name,
        typed ? std::string(py::str(a.source.attr("dtype"))) : std::string(Py_TYPE(a.source.ptr())->tp_name),
        list(a.shape, a.axes), list(a.strides, a.axes));
}

}  // namespace ropewalk::python
