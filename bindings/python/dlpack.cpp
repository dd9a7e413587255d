// The array interchange protocol DLPack (https://dmlc.github.io/dlpack/latest/python_spec.html).

#include <dlpack/dlpack.h>

#include <ropewalk/core/error.hpp>

#include "array.hpp"

namespace ropewalk::python {

namespace {

/// DLManagedTensorVersioned of DLPack 1.0, which older headers lack.
struct versioned_tensor {
    std::uint32_t major, minor;
    void* manager;
    void (*deleter)(versioned_tensor*);
    std::uint64_t flags;
    DLTensor tensor;
};
constexpr std::uint64_t read_only = 1, copied = 2;

}  // namespace

/// DLPackExchangeAPI of DLPack 1.3. What is not called here is only a place.
struct exchange_table {
    std::uint32_t major, minor;
    const exchange_table* older;
    void *allocate, *export_managed, *import_managed;
    int (*show)(void* object, DLTensor* out);  ///< may be null; not 0 with a Python error
    void* current_stream;
};

namespace {

/// Producers before DLPack 1.0 do not know `max_version`. Without a stream a producer on CUDA has the memory ready for
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

/// The tensor inside. The capsule keeps it: one that nobody renames deletes its tensor when it goes.
const DLTensor& open_capsule(const py::object& capsule, bool& writable, const char* name) {
    if (PyCapsule_IsValid(capsule.ptr(), "dltensor_versioned") != 0) {
        const auto* const managed =
            static_cast<const versioned_tensor*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor_versioned"));
        RW_EXPECTS(managed->major == 1, "{} speaks DLPack {}.{}, this module 1", name, managed->major, managed->minor);
        writable = (managed->flags & (read_only | copied)) == 0;  // nobody would see what a copy is written
        return managed->tensor;
    }
    const auto* const managed = static_cast<const DLManagedTensor*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"));
    if (managed == nullptr) throw py::error_already_set();
    return managed->dl_tensor;
}

number type_of(const DLDataType& type) {
    if (type.lanes != 1) return number::other;
    if (type.code == kDLFloat) return type.bits == 32 ? number::f32 : type.bits == 16 ? number::f16 : number::other;
    if (type.code == kDLBfloat && type.bits == 16) return number::bf16;
    if (type.code == kDLInt) return type.bits == 64 ? number::i64 : type.bits == 32 ? number::i32 : number::other;
    return number::other;
}

/// JAX's arrays never change, but its DLPack (0.10) does not say so.
bool never_changes(py::handle object) {
    return std::string(py::str(py::type::of(object).attr("__module__"))).rfind("jax", 0) == 0;
}

void read_axes(const DLTensor& tensor, array& a) {
    a.axes = tensor.ndim;
    std::int64_t compact = 1;
    for (int i = a.axes - 1; i >= 0; --i) {
        const auto axis = static_cast<std::size_t>(i);
        a.shape[axis] = tensor.shape[i];
        a.strides[axis] = tensor.strides == nullptr ? compact : tensor.strides[i];
        compact *= tensor.shape[i];
    }
}

/// What JAX has in place of arrays inside of its transforms shows one half of the protocol.
py::object ask_for_device(py::handle object, const char* name) {
    try {
        return object.attr("__dlpack_device__")();
    } catch (const py::error_already_set& problem) {
        if (!problem.matches(PyExc_AttributeError)) throw;
        detail::fail("{} is a {} without memory, like what stands for an array inside of jax.jit, grad and vmap: {}",
                     name, Py_TYPE(object.ptr())->tp_name, std::string(py::str(problem.value())));
    }
}

int device_of(py::handle object, const char* name) {
    const auto device = ask_for_device(object, name).cast<std::pair<int, int>>();
    if (device.first == kDLCPU || device.first == kDLCUDAHost || device.first == kDLROCMHost) return array::host;
    RW_EXPECTS(device.first == kDLCUDA || device.first == kDLCUDAManaged,
               "{} is on DLPack device {}:{}, and ropewalk computes on CPUs and CUDA devices: copy it there first",
               name, device.first, device.second);
    return device.second;
}

}  // namespace

array read_dlpack(py::handle object, const char* name) {
    array a;
    a.device = device_of(object, name);
    a.origin = array::library::other;
    a.source = object;
    a.owner = export_capsule(object);
    const DLTensor& tensor = open_capsule(a.owner, a.writable, name);
    if (never_changes(object)) a.writable = false;
    RW_EXPECTS(tensor.ndim <= array::most_axes, "{} has {} axes", name, tensor.ndim);
    a.type = type_of(tensor.dtype);
    a.data = static_cast<char*>(tensor.data) + tensor.byte_offset;
    read_axes(tensor, a);
    return a;
}

const exchange_table* exchange_of(PyObject* type) {
    PyObject* const found = PyObject_GetAttrString(type, "__dlpack_c_exchange_api__");
    if (found == nullptr) return PyErr_Clear(), nullptr;
    const auto capsule = py::reinterpret_steal<py::object>(found);
    constexpr const char* name = "dlpack_exchange_api";
    if (PyCapsule_IsValid(capsule.ptr(), name) == 0) return nullptr;
    const auto* table = static_cast<const exchange_table*>(PyCapsule_GetPointer(capsule.ptr(), name));
    while (table != nullptr && table->major != 1) table = table->older;
    return table == nullptr || table->show == nullptr ? nullptr : table;
}

bool read_exchanged(py::handle object, const exchange_table& table, array& a) {
    DLTensor tensor;
    if (table.show(object.ptr(), &tensor) != 0) return PyErr_Clear(), false;
    const bool host = tensor.device.device_type == kDLCPU;
    if (tensor.ndim > array::most_axes || !(host || tensor.device.device_type == kDLCUDA)) return false;
    a.device = host ? array::host : tensor.device.device_id;
    a.type = type_of(tensor.dtype);
    a.data = static_cast<char*>(tensor.data) + tensor.byte_offset;
    read_axes(tensor, a);
    return true;
}

}  // namespace ropewalk::python
