#include "array.hpp"

#include <dlpack/dlpack.h>

#include <cmath>

#include <ropewalk/core/error.hpp>

namespace ropewalk::python {

namespace {

/// Attribute names, interned once.
struct attribute_names {
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
const attribute_names& names() {
    static const attribute_names all;
    return all;
}

void check_axes(std::int64_t axes, const char* name) {
    RW_EXPECTS(axes <= array::max_axes, "{} must have at most {} axes, got {}", name, array::max_axes, axes);
}

// DLPack: https://dmlc.github.io/dlpack/latest/python_spec.html

/// DLManagedTensorVersioned of DLPack 1.0, which older headers lack.
struct versioned_tensor {
    std::uint32_t major, minor;
    void* manager;
    void (*deleter)(versioned_tensor*);
    std::uint64_t flags;
    DLTensor tensor;
};
constexpr std::uint64_t read_only = 1, copied = 2;

/// DLPackExchangeAPI of DLPack 1.3: C functions that describe a tensor without a Python object or an allocation.
struct exchange_table {
    std::uint32_t major, minor;
    const exchange_table* older;
    void *allocate, *export_managed, *import_managed;
    int (*describe)(void* object, DLTensor* out);  ///< may be null; not 0 with a Python error
    void* current_stream;
};

/// The number of a kind ('f', 'i' or 'u') with this many bytes.
number number_of(char kind, int bytes) {
    const auto select = [bytes](number one, number two, number four, number eight) {
        return bytes == 1 ? one : bytes == 2 ? two : bytes == 4 ? four : bytes == 8 ? eight : number::other;
    };
    if (kind == 'f') return select(number::other, number::f16, number::f32, number::f64);
    if (kind == 'i') return select(number::i8, number::i16, number::i32, number::i64);
    if (kind == 'u') return select(number::u8, number::u16, number::u32, number::other);
    return number::other;
}

/// DLDataTypeCode of DLPack 1.1 for the 8-bit floats that caches use: e4m3fn and e5m2.
constexpr int dl_float8_e4m3fn = 10, dl_float8_e5m2 = 12;

number type_of(const DLDataType& type) {
    if (type.lanes != 1) return number::other;
    if (type.code == dl_float8_e4m3fn && type.bits == 8) return number::f8e4m3;
    if (type.code == dl_float8_e5m2 && type.bits == 8) return number::f8e5m2;
    if (type.code == kDLBfloat) return type.bits == 16 ? number::bf16 : number::other;
    const char kind = type.code == kDLFloat ? 'f' : type.code == kDLInt ? 'i' : type.code == kDLUInt ? 'u' : ' ';
    return number_of(kind, type.bits / 8);
}

void read_dltensor(const DLTensor& tensor, array& a) {
    a.type = type_of(tensor.dtype);
    a.data = static_cast<char*>(tensor.data) + tensor.byte_offset;
    a.axes = tensor.ndim;
    std::int64_t contiguous = 1;
    for (int i = a.axes - 1; i >= 0; --i) {
        const auto axis = static_cast<std::size_t>(i);
        a.shape[axis] = tensor.shape[i];
        a.strides[axis] = tensor.strides == nullptr ? contiguous : tensor.strides[i];
        contiguous *= tensor.shape[i];
    }
}

/// Producers before DLPack 1.0 do not know `max_version`. Without a stream, a producer on CUDA has the memory ready for
/// the legacy default stream.
py::object export_capsule(py::handle object) {
    const py::object method = object.attr("__dlpack__");
    try {
        return method(py::arg("max_version") = py::make_tuple(1, 0));
    } catch (const py::error_already_set& problem) {
        if (!problem.matches(PyExc_TypeError)) throw;
    }
    return method();
}

/// The tensor inside. The capsule owns it until a consumer renames the capsule, which this one never does.
const DLTensor& open_capsule(const py::object& capsule, bool& writable, const char* name) {
    if (PyCapsule_IsValid(capsule.ptr(), "dltensor_versioned") != 0) {
        const auto* const managed =
            static_cast<const versioned_tensor*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor_versioned"));
        RW_EXPECTS(managed->major == 1, "{} uses DLPack {}.{}, and ropewalk reads version 1", name, managed->major,
                   managed->minor);
        writable = (managed->flags & (read_only | copied)) == 0;  // writes to a copy would be lost
        return managed->tensor;
    }
    const auto* const managed = static_cast<const DLManagedTensor*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"));
    if (managed == nullptr) throw py::error_already_set();
    return managed->dl_tensor;
}

/// JAX's arrays are immutable, but its DLPack (0.10) does not say so.
bool is_immutable(py::handle object) {
    return std::string(py::str(py::type::of(object).attr("__module__"))).rfind("jax", 0) == 0;
}

int dlpack_device(py::handle object, const char* name) {
    std::pair<int, int> device;
    try {
        device = object.attr("__dlpack_device__")().cast<std::pair<int, int>>();
    } catch (const py::error_already_set& problem) {
        if (!problem.matches(PyExc_AttributeError)) throw;
        detail::fail("{} is a {} without memory; in jax.jit, grad and vmap call ropewalk.jax.rotate() instead", name,
                     Py_TYPE(object.ptr())->tp_name);
    }
    if (device.first == kDLCPU || device.first == kDLCUDAHost || device.first == kDLROCMHost) return array::host;
    RW_EXPECTS(device.first == kDLCUDA || device.first == kDLCUDAManaged,
               "{} is on DLPack device {}:{}, but ropewalk computes on CPUs and CUDA devices; copy it to one first",
               name, device.first, device.second);
    return device.second;
}

array read_dlpack(py::handle object, const char* name) {
    array a;
    a.device = dlpack_device(object, name);
    a.origin = array::library::other;
    a.source = object;
    a.owner = export_capsule(object);
    const DLTensor& tensor = open_capsule(a.owner, a.writable, name);
    if (is_immutable(object)) a.writable = false;
    check_axes(tensor.ndim, name);
    read_dltensor(tensor, a);
    return a;
}

/// The table of torch.Tensor; null before PyTorch 2.10.
const exchange_table* torch_exchange() {
    static const exchange_table* const found = []() -> const exchange_table* {
        constexpr const char* name = "dlpack_exchange_api";
        const auto capsule = py::getattr(loaded_torch()->tensor_type, "__dlpack_c_exchange_api__", py::none());
        if (PyCapsule_IsValid(capsule.ptr(), name) == 0) return nullptr;
        const auto* table = static_cast<const exchange_table*>(PyCapsule_GetPointer(capsule.ptr(), name));
        while (table != nullptr && table->major != 1) table = table->older;
        return table == nullptr || table->describe == nullptr ? nullptr : table;
    }();
    return found;
}

/// Fills data, shape, type and device. False, without an error, for tensors that have none on the CPU or on CUDA.
bool read_exchanged(py::handle tensor, array& a) {
    const exchange_table* const table = torch_exchange();
    DLTensor described;
    if (table == nullptr) return false;
    if (table->describe(tensor.ptr(), &described) != 0) return PyErr_Clear(), false;
    const bool host = described.device.device_type == kDLCPU;
    if (described.ndim > array::max_axes || !(host || described.device.device_type == kDLCUDA)) return false;
    a.device = host ? array::host : described.device.device_id;
    read_dltensor(described, a);
    return true;
}

void read_tuple(py::handle tuple, std::array<std::int64_t, array::max_axes>& values) {
    for (int i = 0; i < PyTuple_GET_SIZE(tuple.ptr()); ++i) {
        values[static_cast<std::size_t>(i)] = PyLong_AsLongLong(PyTuple_GET_ITEM(tuple.ptr(), i));
    }
    if (PyErr_Occurred() != nullptr) throw py::error_already_set();
}

number torch_type(PyObject* dtype) {
    const torch_module& torch = *loaded_torch();
    if (dtype == torch.float32) return number::f32;
    if (dtype == torch.bfloat16) return number::bf16;
    if (dtype == torch.float16) return number::f16;
    if (dtype == torch.int64) return number::i64;
    if (dtype == torch.int32) return number::i32;
    const auto name = std::string(py::str(dtype));
    for (const auto& [known, type] : {std::pair{"torch.float64", number::f64},
                                      {"torch.float8_e4m3fn", number::f8e4m3},
                                      {"torch.float8_e5m2", number::f8e5m2},
                                      {"torch.int8", number::i8},
                                      {"torch.int16", number::i16},
                                      {"torch.uint8", number::u8},
                                      {"torch.uint16", number::u16},
                                      {"torch.uint32", number::u32}}) {
        if (name == known) return type;
    }
    return number::other;
}

int torch_device(py::handle tensor, const char* name) {
    if (attribute(tensor, names().is_cpu).ptr() == Py_True) return array::host;
    RW_EXPECTS(tensor.attr("is_meta").ptr() != Py_True, "{} is on the device meta, where tensors hold no numbers",
               name);
    RW_EXPECTS(attribute(tensor, names().is_cuda).ptr() == Py_True,
               "{} is on the device {}, but ropewalk computes on CPUs and CUDA devices; pass {}.cpu()", name,
               std::string(py::str(tensor.attr("device"))), name);
    return call(tensor, names().get_device).cast<int>();
}

bool is_negated(py::handle tensor) { return call(tensor, names().is_neg).ptr() == Py_True; }

array read_torch(py::handle tensor, const char* name) {
    array a;
    a.origin = array::library::torch;
    a.source = tensor;
    if (read_exchanged(tensor, a) && !is_negated(tensor)) return a;
    // By attributes: before PyTorch 2.10, and for the message if the tensor is refused.
    a.device = torch_device(tensor, name);
    try {
        const py::object shape = attribute(tensor, names().shape);
        check_axes(PyTuple_GET_SIZE(shape.ptr()), name);
        a.axes = static_cast<int>(PyTuple_GET_SIZE(shape.ptr()));
        read_tuple(shape, a.shape);
        read_tuple(call(tensor, names().stride), a.strides);
        a.data = torch_data(tensor);
        RW_EXPECTS(!is_negated(tensor), "{} is a lazy negation; pass {}.resolve_neg()", name, name);
    } catch (py::error_already_set& problem) {
        // Nested tensors have no shape; sparse and traced ones have no address.
        detail::fail(
            "{} has no strided memory, like sparse, nested and traced tensors and those inside torch.vmap (which is "
            "not needed: a batch is an axis of q and k): {}",
            name, std::string(py::str(problem.value())));
    }
    a.type = torch_type(attribute(tensor, names().dtype).ptr());
    return a;
}

/// The struct of NumPy's `__array_struct__`, whose layout is the same in all versions of NumPy.
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

/// NumPy has no bfloat16 and no 8-bit floats. Those of ml_dtypes, which JAX uses too, appear as opaque bytes.
number opaque_type(py::handle array_object) {
    static PyObject* known_bfloat16 = nullptr;  // the last such dtype, never released
    if (PyObject_HasAttr(array_object.ptr(), names().dtype) == 0) return number::other;
    py::object dtype = attribute(array_object, names().dtype);
    if (dtype.ptr() == known_bfloat16) return number::bf16;
    const auto name = std::string(py::str(dtype.attr("name")));
    if (name == "bfloat16") return known_bfloat16 = dtype.release().ptr(), number::bf16;
    if (name == "float8_e4m3fn") return number::f8e4m3;
    return name == "float8_e5m2" ? number::f8e5m2 : number::other;
}

number numpy_type(const array_interface& raw, py::handle array_object) {
    const bool native = (raw.flags & native_byte_order) != 0;
    const bool opaque = raw.kind == 'V' || (raw.kind == 'f' && raw.item_size == 1);
    if (!opaque) return native || raw.item_size == 1 ? number_of(raw.kind, raw.item_size) : number::other;
    return raw.item_size <= 2 ? opaque_type(array_object) : number::other;
}

bool is_overridden(py::handle type, py::handle ndarray, const char* method) {
    return py::hasattr(type, method) && !type.attr(method).is(ndarray.attr(method));
}

PyObject* ndarray = nullptr;  // the class, known when the first array is read, never released

/// Throws for a class whose elements mean more than the numbers in memory.
void check_type(py::handle type, const char* name, bool nested = false) {
    if (type.ptr() == ndarray) return;
    const py::module_ numpy = py::module_::import("numpy");
    if (ndarray == nullptr) ndarray = py::object(numpy.attr("ndarray")).release().ptr();
    if (type.ptr() == ndarray) return;
    const int masked = PyObject_IsSubclass(type.ptr(), numpy.attr("ma").attr("MaskedArray").ptr());
    if (masked < 0) throw py::error_already_set();
    if (masked == 0 && !is_overridden(type, ndarray, "__array_ufunc__") &&
        !is_overridden(type, ndarray, "__array_function__"))
        return;
    throw py::type_error(
        detail::format("ropewalk: {} {} a {}.{}, and its {} would be lost; pass plain numbers, for example "
                       "numpy.asarray({})",
                       name, nested ? "contains" : "is", std::string(py::str(type.attr("__module__"))),
                       std::string(py::str(type.attr("__qualname__"))), masked == 1 ? "mask" : "meaning", name));
}

bool is_numpy(py::handle object) {  // a class has the attributes of its instances
    return PyType_Check(object.ptr()) == 0 && PyObject_HasAttr(object.ptr(), names().array_struct) != 0;
}

/// A list of lists that check_items() is inside of.
struct open_list {
    py::handle object;
    const open_list* outer;
    int depth;
};

/// check_type() for the arrays in a sequence, and in the sequences in it.
void check_items(py::handle sequence, const char* name, const open_list* outer = nullptr) {
    constexpr int most_axes = 64;  // of NumPy, which refuses deeper lists
    const bool is_text = PyUnicode_Check(sequence.ptr()) != 0 || PyObject_CheckBuffer(sequence.ptr()) != 0;
    if (PySequence_Check(sequence.ptr()) == 0 || is_text || PyRange_Check(sequence.ptr()) != 0 || is_array(sequence))
        return;
    const open_list list{sequence, outer, outer == nullptr ? 1 : outer->depth + 1};
    for (const open_list* each = outer; each != nullptr; each = each->outer)
        RW_EXPECTS(!each->object.is(sequence), "{} is a list that contains itself", name);
    if (list.depth > most_axes) return;
    PyTypeObject* known = nullptr;                                      // of the last array
    for (Py_ssize_t i = 0; i < PySequence_Size(sequence.ptr()); ++i) {  // an item may change the list
        const py::object item = checked(PySequence_GetItem(sequence.ptr(), i));
        if (PyLong_CheckExact(item.ptr()) != 0 || PyFloat_CheckExact(item.ptr()) != 0 || Py_TYPE(item.ptr()) == known)
            continue;
        if (is_numpy(item)) {
            check_type(py::type::handle_of(item), name, true);
            known = Py_TYPE(item.ptr());
        } else {
            check_items(item, name, &list);
        }
    }
    if (PyErr_Occurred() != nullptr && PyErr_ExceptionMatches(PyExc_TypeError) == 0) throw py::error_already_set();
    PyErr_Clear();  // an object without a length, which NumPy takes for a single item
}

array read_numpy(py::handle object, const py::object& capsule, const char* name) {
    check_type(py::type::handle_of(object), name);
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
                   "{} has a stride of {} bytes along axis {}, which is not a multiple of the element size of {} bytes",
                   name, raw->strides[i], i, raw->item_size);
        a.strides[axis] = raw->item_size == 0 ? 0 : raw->strides[i] / raw->item_size;
    }
    return a;
}

std::string list(const std::array<std::int64_t, array::max_axes>& values, int count) {
    std::string text = "[";
    for (int i = 0; i < count; ++i) text += (i == 0 ? "" : ", ") + std::to_string(values[static_cast<std::size_t>(i)]);
    return text + "]";
}

}  // namespace

void* torch_data(py::handle tensor) {
    array a;
    return read_exchanged(tensor, a) ? a.data : PyLong_AsVoidPtr(call(tensor, names().data_ptr).ptr());
}

bool is_array(py::handle object) {
    return is_torch_tensor(object) || PyObject_HasAttr(object.ptr(), names().array_struct) != 0 ||
           PyObject_HasAttr(object.ptr(), names().dlpack) != 0;
}

void check_plain(py::handle object, const char* name) {
    if (is_numpy(object)) return check_type(py::type::handle_of(object), name);
    check_items(object, name);
}

array read_array(py::handle object, const char* name) {
    if (is_torch_tensor(object)) return read_torch(object, name);
    if (PyType_Check(object.ptr()) == 0) {  // a class has the attributes of its instances
        if (PyObject* const capsule = PyObject_GetAttr(object.ptr(), names().array_struct)) {
            return read_numpy(object, py::reinterpret_steal<py::object>(capsule), name);
        }
        PyErr_Clear();
        if (PyObject_HasAttr(object.ptr(), names().dlpack) != 0) return read_dlpack(object, name);
    }
    throw py::type_error(
        detail::format("ropewalk: {} must be a NumPy array, a PyTorch tensor or an object with __dlpack__, got {}",
                       name, Py_TYPE(object.ptr())->tp_name));
}

bool is_passive(py::handle object) {
    return object.is_none() || reinterpret_cast<PyObject*>(Py_TYPE(object.ptr())) == ndarray || is_plain_tensor(object);
}

void check_unmoved(const array& a, const char* name) {
    if (!a.source || a.origin == array::library::other) return;  // a DLPack capsule keeps its memory
    const array now = read_array(a.source, name);
    RW_EXPECTS(now.data == a.data && now.axes == a.axes && now.shape == a.shape && now.strides == a.strides,
               "{} was {}, and Python code of another argument changed it during the call", describe(now, name),
               list(a.shape, a.axes));
}

std::string device_name(const array& a) { return a.on_host() ? "the CPU" : "cuda:" + std::to_string(a.device); }

void check_device(const array& a, const char* name, const array& like) {
    RW_EXPECTS(a.device == like.device, "{} is on {}, and the call runs on {}", name, device_name(a),
               device_name(like));
}

void check_reach(const array& a, const char* name) {
    constexpr double max_reach = 0x1p60;
    double reach = 0;
    for (int i = 0; i < a.axes; ++i) {
        const auto axis = static_cast<std::size_t>(i);
        if (a.shape[axis] > 1)
            reach += static_cast<double>(a.shape[axis]) * std::fabs(static_cast<double>(a.strides[axis]));
    }
    RW_EXPECTS(reach <= max_reach || a.is_empty(), "{} must span at most 2^60 elements", describe(a, name));
}

std::string describe(const array& a, const char* name) {
    const bool typed = py::hasattr(a.source, "dtype");
    return detail::format(
        "{} {} {} of strides {}", name,
        typed ? std::string(py::str(a.source.attr("dtype"))) : std::string(Py_TYPE(a.source.ptr())->tp_name),
        list(a.shape, a.axes), list(a.strides, a.axes));
}

}  // namespace ropewalk::python
