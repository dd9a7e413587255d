// Element types of the tensors that kernels read and write.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "ropewalk/core/compiler.hpp"
#include "ropewalk/core/half.hpp"

namespace ropewalk {

/// An element type as a run-time value.
enum class element_type : std::uint8_t { f32, f16, bf16, f64 };

/// float, f16 or bf16: the types of SIMD and GPU kernels, which compute in float.
template <class T>
concept Element = std::same_as<T, float> || std::same_as<T, f16> || std::same_as<T, bf16>;

/// An Element or double: the types of views. Rotations of double run on the CPU only, without SIMD.
template <class T>
concept ViewElement = Element<T> || std::same_as<T, double>;

template <ViewElement T>
inline constexpr element_type type_of = std::same_as<T, float>  ? element_type::f32
                                        : std::same_as<T, f16>  ? element_type::f16
                                        : std::same_as<T, bf16> ? element_type::bf16
                                                                : element_type::f64;

/// Returns the bytes per element.
constexpr std::size_t size_of(element_type type) {
    return type == element_type::f32 ? 4 : type == element_type::f64 ? 8 : 2;
}

RW_INLINE constexpr std::string_view to_string(element_type type) {
    switch (type) {
        case element_type::f32:
            return "f32";
        case element_type::f16:
            return "f16";
        case element_type::f64:
            return "f64";
        default:
            return "bf16";
    }
}

/// Returns the largest finite number of the type.
constexpr double largest(element_type type) {
    switch (type) {
        case element_type::f32:
            return 0x1.fffffep+127;
        case element_type::f16:
            return 65504.0;
        case element_type::f64:
            return 0x1.fffffffffffffp+1023;
        default:
            return 0x1.fep+127;
    }
}

}  // namespace ropewalk
