// 8-bit floating-point storage type of key-value caches. Arithmetic is in float.
#pragma once

#include <cstdint>

#include "ropewalk/core/bits.hpp"
#include "ropewalk/core/compiler.hpp"

namespace ropewalk {

namespace detail {

/// Rounds to OCP E4M3, to nearest even. Values beyond ±448 saturate; every NaN becomes 0x7f. The result equals that of
/// NVIDIA's cvt.rn.satfinite.e4m3x2.f32.
RW_HD RW_INLINE constexpr std::uint8_t float_to_e4m3(float value) {
    const auto bits = bit_cast<std::uint32_t>(value);
    const auto sign = static_cast<std::uint32_t>((bits >> 24) & 0x80U);
    const std::uint32_t magnitude = bits & 0x7fffffffU;
    if (magnitude > 0x7f800000U) return 0x7fU;
    if (magnitude >= 0x43e00000U) return static_cast<std::uint8_t>(sign | 0x7eU);
    if (magnitude < 0x3c800000U) {
        // Subnormal result: adding 2^14 leaves the rounded mantissa, in units of 2^-9, in the low bits of the sum.
        const float sum = bit_cast<float>(magnitude) + 0x1p14F;
        return static_cast<std::uint8_t>(sign | (bit_cast<std::uint32_t>(sum) - 0x46800000U));
    }
    const std::uint32_t rounded = magnitude + 0x7ffffU + ((magnitude >> 20) & 1U) - 0x3c000000U;
    return static_cast<std::uint8_t>(sign | (rounded >> 20));
}

/// Exact.
RW_HD RW_INLINE constexpr float e4m3_to_float(std::uint8_t code) {
    const std::uint32_t sign = static_cast<std::uint32_t>(code & 0x80U) << 24;
    const std::uint32_t magnitude = code & 0x7fU;
    if (magnitude == 0x7fU) return bit_cast<float>(sign | 0x7fc00000U);
    if (magnitude < 8U) {
        const float value = static_cast<float>(magnitude) * 0x1p-9F;
        return bit_cast<float>(sign | bit_cast<std::uint32_t>(value));
    }
    return bit_cast<float>(sign | ((magnitude << 20) + 0x3c000000U));
}

}  // namespace detail

/// OCP E4M3 (e4m3fn): 4 exponent bits, 3 mantissa bits, no infinity, one NaN per sign, largest number 448.
struct f8e4m3 {
    std::uint8_t bits = 0;

    constexpr f8e4m3() = default;
    RW_HD RW_INLINE constexpr explicit f8e4m3(float value) : bits(detail::float_to_e4m3(value)) {}
    RW_HD RW_INLINE constexpr explicit operator float() const { return detail::e4m3_to_float(bits); }
};

}  // namespace ropewalk
