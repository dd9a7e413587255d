// 8-bit floating-point storage types of key-value caches. Arithmetic is in float.
#pragma once

#include <cstdint>

#include "ropewalk/core/bits.hpp"
#include "ropewalk/core/compiler.hpp"

namespace ropewalk {

namespace detail {

/// A float of 8 bits: `Mantissa` mantissa bits, exponents in excess of `Bias`, `largest` the code of its largest
/// number.
template <int Mantissa, int Bias, std::uint8_t Largest>
struct fp8_format {
    static constexpr int shift = 23 - Mantissa;
    static constexpr std::uint32_t rebias = static_cast<std::uint32_t>(127 - Bias) << 23;
    static constexpr std::uint32_t smallest_normal = rebias + (1U << 23);
    /// 2^23 subnormal steps: added to a number, it leaves the rounded number of steps in the low bits of the sum.
    static constexpr std::uint32_t steps = static_cast<std::uint32_t>(127 + 23 + 1 - Bias - Mantissa) << 23;
    static constexpr std::uint32_t largest = Largest;
    static constexpr std::uint32_t limit = (std::uint32_t{Largest} << shift) + rebias;

    /// Rounds to nearest even. Larger values saturate, infinities too; every NaN becomes 0x7f.
    static RW_HD RW_INLINE constexpr std::uint8_t round(float value) {
        const auto bits = bit_cast<std::uint32_t>(value);
        const auto sign = static_cast<std::uint32_t>((bits >> 24) & 0x80U);
        const std::uint32_t magnitude = bits & 0x7fffffffU;
        if (magnitude > 0x7f800000U) return 0x7fU;
        if (magnitude >= limit) return static_cast<std::uint8_t>(sign | Largest);
        if (magnitude < smallest_normal) {
            const float sum = bit_cast<float>(magnitude) + bit_cast<float>(steps);
            return static_cast<std::uint8_t>(sign | (bit_cast<std::uint32_t>(sum) - steps));
        }
        const std::uint32_t odd = (magnitude >> shift) & 1U;
        const std::uint32_t rounded = magnitude + (1U << (shift - 1)) - 1U + odd - rebias;
        return static_cast<std::uint8_t>(sign | (rounded >> shift));
    }

    /// The value of a number; NaN for codes beyond the largest number that are not those of an infinity.
    static RW_HD RW_INLINE constexpr float value(std::uint8_t code) {
        const std::uint32_t sign = static_cast<std::uint32_t>(code & 0x80U) << 24;
        const std::uint32_t magnitude = code & 0x7fU;
        if (magnitude > Largest) {
            const bool infinite = magnitude == Largest + 1U && Largest != 0x7eU;
            return bit_cast<float>(sign | (infinite ? 0x7f800000U : 0x7fc00000U));
        }
        if (magnitude < 1U << Mantissa) {
            const float sum = bit_cast<float>(magnitude | steps) - bit_cast<float>(steps);
            return bit_cast<float>(sign | bit_cast<std::uint32_t>(sum));
        }
        return bit_cast<float>(sign | ((magnitude << shift) + rebias));
    }
};

using e4m3_format = fp8_format<3, 7, 0x7e>;
using e5m2_format = fp8_format<2, 15, 0x7b>;

}  // namespace detail

/// OCP E4M3 (e4m3fn): 4 exponent bits, 3 mantissa bits, no infinity, one NaN per sign, largest number 448. Rounds as
/// NVIDIA's cvt.rn.satfinite.e4m3x2.f32: to nearest even, values beyond ±448 saturate, every NaN becomes 0x7f.
struct f8e4m3 {
    std::uint8_t bits = 0;

    constexpr f8e4m3() = default;
    RW_HD RW_INLINE constexpr explicit f8e4m3(float value) : bits(detail::e4m3_format::round(value)) {}
    RW_HD RW_INLINE constexpr explicit operator float() const { return detail::e4m3_format::value(bits); }
};

/// OCP E5M2: 5 exponent bits, 2 mantissa bits, infinities, largest number 57344. Rounds as NVIDIA's
/// cvt.rn.satfinite.e5m2x2.f32: to nearest even, values beyond ±57344 saturate, infinities too, every NaN becomes 0x7f.
struct f8e5m2 {
    std::uint8_t bits = 0;

    constexpr f8e5m2() = default;
    RW_HD RW_INLINE constexpr explicit f8e5m2(float value) : bits(detail::e5m2_format::round(value)) {}
    RW_HD RW_INLINE constexpr explicit operator float() const { return detail::e5m2_format::value(bits); }
};

}  // namespace ropewalk
