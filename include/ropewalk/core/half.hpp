// 16-bit storage types f16 and bf16. Arithmetic is in float.
#pragma once

#include <cstdint>

#include "ropewalk/core/bits.hpp"
#include "ropewalk/core/compiler.hpp"

namespace ropewalk {

namespace detail {

/// Rounds to the upper half of a float, to nearest even. A NaN stays a quiet NaN.
RW_HD RW_INLINE constexpr std::uint16_t float_to_bf16(float value) {
    const auto bits = bit_cast<std::uint32_t>(value);
    if ((bits & 0x7fffffffU) > 0x7f800000U) return static_cast<std::uint16_t>((bits >> 16) | 0x40U);
    return static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

RW_HD RW_INLINE constexpr float bf16_to_float(std::uint16_t bits) {
    return bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

/// Rounds to IEEE binary16, to nearest even. Overflow gives infinity; a NaN stays a quiet NaN.
RW_HD RW_INLINE constexpr std::uint16_t float_to_f16(float value) {
    const auto bits = bit_cast<std::uint32_t>(value);
    const auto sign = static_cast<std::uint32_t>((bits >> 16) & 0x8000U);
    const std::uint32_t magnitude = bits & 0x7fffffffU;
    if (magnitude > 0x7f800000U) return static_cast<std::uint16_t>(sign | 0x7e00U | ((magnitude >> 13) & 0x3ffU));
    if (magnitude >= 0x477ff000U) return static_cast<std::uint16_t>(sign | 0x7c00U);
    if (magnitude < 0x38800000U) {
        // Subnormal result: adding 0.5 leaves the rounded mantissa in the low bits of the sum.
        const float sum = bit_cast<float>(magnitude) + 0.5F;
        return static_cast<std::uint16_t>(sign | (bit_cast<std::uint32_t>(sum) - 0x3f000000U));
    }
    const std::uint32_t rounded = magnitude + 0xfffU + ((magnitude >> 13) & 1U) - 0x38000000U;
    return static_cast<std::uint16_t>(sign | (rounded >> 13));
}

RW_HD RW_INLINE constexpr float f16_to_float(std::uint16_t half) {
    const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000U) << 16;
    const std::uint32_t magnitude = half & 0x7fffU;
    if (magnitude >= 0x7c00U) {
        const std::uint32_t quiet = magnitude > 0x7c00U ? 0x400000U : 0U;
        return bit_cast<float>(sign | 0x7f800000U | quiet | ((magnitude & 0x3ffU) << 13));
    }
    if (magnitude < 0x400U) {
        const float value = static_cast<float>(magnitude) * 0x1p-24F;
        return bit_cast<float>(sign | bit_cast<std::uint32_t>(value));
    }
    return bit_cast<float>(sign | ((magnitude << 13) + 0x38000000U));
}

}  // namespace detail

/// bfloat16: the upper half of a float. Its pointers may point to memory that holds another 16-bit type.
struct RW_MAY_ALIAS bf16 {
    std::uint16_t bits = 0;

    constexpr bf16() = default;
    RW_HD RW_INLINE constexpr explicit bf16(float value) : bits(detail::float_to_bf16(value)) {}
    RW_HD RW_INLINE constexpr explicit operator float() const { return detail::bf16_to_float(bits); }
};

/// IEEE binary16. Its pointers may point to memory that holds another 16-bit type.
struct RW_MAY_ALIAS f16 {
    std::uint16_t bits = 0;

    constexpr f16() = default;
    RW_HD RW_INLINE constexpr explicit f16(float value) : bits(detail::float_to_f16(value)) {}
    RW_HD RW_INLINE constexpr explicit operator float() const { return detail::f16_to_float(bits); }
};

}  // namespace ropewalk
