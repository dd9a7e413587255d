// Somebody else's array, whichever library it comes from: where its memory is and how its axes lie in it.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>

#include "torch.hpp"

namespace ropewalk::python {

enum class number : std::uint8_t { f32, f16, bf16, i32, i64, other };

/// Valid while the Python object is.
struct array {
    enum class library : std::uint8_t { numpy, torch, other };
    static constexpr int most_axes = 8;
    static constexpr int host = -1;

    void* data = nullptr;
    int axes = 0;
    std::array<std::int64_t, most_axes> shape{}, strides{};  ///< strides in elements
    number type = number::other;
    bool writable = true;
    library origin = library::numpy;
    int device = host;  ///< or the number of a CUDA device
    py::handle source;
    py::object owner;  ///< what keeps the memory, where the source alone does not

    [[nodiscard]] bool on_host() const { return device == host; }
    [[nodiscard]] bool is_empty() const {
        return std::any_of(shape.begin(), shape.begin() + axes, [](std::int64_t extent) { return extent == 0; });
    }
    /// Whether the elements lie side by side in the order of the axes.
    [[nodiscard]] bool is_compact() const {
        std::int64_t stride = 1;
        for (int i = axes - 1; i >= 0; --i) {
            const auto axis = static_cast<std::size_t>(i);
            if (shape[axis] != 1 && strides[axis] != stride) return false;
            stride *= shape[axis];
        }
        return true;
    }
};

/// Reads a NumPy array, a torch tensor or whatever has __dlpack__, without a copy. `name` is for messages. Throws
/// ropewalk::error for memory that neither the CPU nor a CUDA device reaches, and TypeError for what is no array.
array read_array(py::handle object, const char* name);

/// Whether read_array() would know what to do.
bool is_array(py::handle object);

/// "q float64 [4, 2, 128] of strides [256, 128, 1]"
std::string describe(const array& a, const char* name);

/// "cuda:0" or "the CPU"
std::string place_of(const array& a);

/// Throws unless `a` lies where `like`, of which the call is, does.
void check_place(const array& a, const char* name, const array& like);

/// Throws unless the strides keep all elements within what 64 bits count.
void check_reach(const array& a, const char* name);

/// Where the elements of a torch tensor are.
void* torch_data(py::handle tensor);

/// For read_array(): the part that speaks DLPack.
array read_dlpack(py::handle object, const char* name);

/// The same without a Python object or an allocation: data, axes, type and device. False, with nothing said, where the
/// library refuses or the memory is none of ours.
bool read_exchanged(py::handle object, const exchange_table& table, array& a);

/// Calls a function without arguments.
inline py::object call(PyObject* function) {
    PyObject* const result = PyObject_CallNoArgs(function);
    if (result == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(result);
}

/// Calls an attribute without arguments.
inline py::object call(py::handle object, PyObject* method) {
    PyObject* const result = PyObject_CallMethodNoArgs(object.ptr(), method);
    if (result == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(result);
}

/// Calls a function with one argument.
inline py::object call_with(PyObject* function, py::handle argument) {
    PyObject* const result = PyObject_CallOneArg(function, argument.ptr());
    if (result == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(result);
}

inline py::object attribute(py::handle object, PyObject* name) {
    PyObject* const result = PyObject_GetAttr(object.ptr(), name);
    if (result == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(result);
}

}  // namespace ropewalk::python
