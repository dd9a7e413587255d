// Operations that differ between one float and a SIMD register, so that each formula is written once.
#pragma once

#include <cstdint>

#include "ropewalk/core/bits.hpp"
#include "ropewalk/core/compiler.hpp"

namespace ropewalk::detail {

/// Operations on F, a float or a SIMD register. `bits` is the unsigned integer type with the same lanes.
/// cpu/simd/simd.hpp has the specialisations for SIMD registers.
template <class F>
struct lanes;

template <>
struct lanes<float> {
    using bits = std::uint32_t;

    static RW_HD RW_INLINE constexpr float broadcast(float value) { return value; }
    static RW_HD RW_INLINE constexpr bits broadcast_bits(std::uint32_t value) { return value; }
    /// a · b + c, fused where the machine supports it.
    static RW_HD RW_INLINE constexpr float multiply_add(float a, float b, float c) {
        return is_constant_evaluated() ? a * b + c : RW_FMA(a, b, c);
    }
    /// a · b − c, fused where the machine supports it.
    static RW_HD RW_INLINE constexpr float multiply_subtract(float a, float b, float c) {
        return multiply_add(a, b, -c);
    }
    /// Converts a two's complement integer to float.
    static RW_HD RW_INLINE constexpr float from_signed(bits value) {
        return static_cast<float>(static_cast<std::int32_t>(value));
    }
    static RW_HD RW_INLINE constexpr bits to_bits(float value) { return bit_cast<bits>(value); }
    static RW_HD RW_INLINE constexpr float from_bits(bits value) { return bit_cast<float>(value); }
    static RW_HD RW_INLINE constexpr bits shift_left(bits value, int count) { return value << count; }
    static RW_HD RW_INLINE constexpr bits shift_right(bits value, int count) { return value >> count; }
    /// Returns a where bit `Bit` of `selector` is set, else b.
    template <int Bit>
    static RW_HD RW_INLINE constexpr float choose(bits selector, float a, float b) {
        return (selector >> Bit & 1U) != 0 ? a : b;
    }
};

/// The arithmetic of a rotation in double.
template <>
struct lanes<double> {
    static RW_INLINE constexpr double multiply_add(double a, double b, double c) { return a * b + c; }
    static RW_INLINE constexpr double multiply_subtract(double a, double b, double c) { return a * b - c; }
};

}  // namespace ropewalk::detail
