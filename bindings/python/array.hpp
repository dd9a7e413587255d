// Arrays of NumPy, PyTorch and libraries with DLPack, as an address, a shape and strides.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>

#include "torch.hpp"

namespace ropewalk::python {

enum class number : std::uint8_t { f32, f16, bf16, f64, f8e4m3, f8e5m2, i8, i16, i32, i64, u8, u16, u32, other };

/// Non-owning, valid while the Python object lives.
struct array {
    enum class library : std::uint8_t { numpy, torch, other };
    static constexpr int max_axes = 8;
    static constexpr int host = -1;

    void* data = nullptr;
    int axes = 0;
    std::array<std::int64_t, max_axes> shape{}, strides{};  ///< strides in elements
    number type = number::other;
    bool writable = true;
    library origin = library::numpy;
    int device = host;  ///< or the number of a CUDA device
    py::handle source;
    py::object owner;  ///< keeps the memory alive if the source alone does not

    [[nodiscard]] bool on_host() const { return device == host; }
    [[nodiscard]] bool is_empty() const {
        return std::any_of(shape.begin(), shape.begin() + axes, [](std::int64_t extent) { return extent == 0; });
    }
    /// True if the elements are contiguous in the order of the axes.
    [[nodiscard]] bool is_contiguous() const {
        std::int64_t stride = 1;
        for (int i = axes - 1; i >= 0; --i) {
            const auto axis = static_cast<std::size_t>(i);
            if (shape[axis] != 1 && strides[axis] != stride) return false;
            stride *= shape[axis];
        }
        return true;
    }
};

/// Reads a NumPy array, a PyTorch tensor or an object with __dlpack__, without a copy. `name` is for messages.
///
/// Throws ropewalk::error for memory that neither the CPU nor a CUDA device reaches, and TypeError for an object that
/// is no array.
array read_array(py::handle object, const char* name);

/// Throws TypeError for an array of NumPy's interface whose class gives the numbers a meaning that memory does not
/// hold: a masked array, or a class with functions of its own for NumPy's, such as one with units. The same for arrays
/// inside of lists. Throws ropewalk::error for a list that contains itself, which NumPy would read without an end.
void check_plain(py::handle object, const char* name);

/// True if read_array() accepts the type of the object.
bool is_array(py::handle object);

/// True if reading the object runs no Python code: None, a NumPy array or a PyTorch tensor, but none of a derived
/// class.
bool is_passive(py::handle object);

/// Throws if the memory of an array has moved since it was read. The conversion of another argument can run Python
/// code, such as `__index__` of an entry of a list, that resizes the array.
void check_unmoved(const array& a, const char* name);

/// "q float64 [4, 2, 128] of strides [256, 128, 1]"
std::string describe(const array& a, const char* name);

/// "cuda:0" or "the CPU"
std::string device_name(const array& a);

/// Throws unless `a` is on the device of `like`, where the call runs.
void check_device(const array& a, const char* name, const array& like);

/// Throws unless the offsets of all elements fit in 64 bits.
void check_reach(const array& a, const char* name);

/// Address of the first element of a PyTorch tensor.
void* torch_data(py::handle tensor);

}  // namespace ropewalk::python
