// Compiler builtins usable in device code, in place of standard functions that run on the host only.
#pragma once

#include <cstdint>

#include "ropewalk/core/compiler.hpp"

namespace ropewalk::detail {

/// std::bit_cast for host and device.
template <class To, class From>
RW_HD RW_INLINE constexpr To bit_cast(const From& value) {
    return __builtin_bit_cast(To, value);
}

/// std::isfinite and std::isnan by bit pattern, because -ffast-math assumes that no value is infinite or NaN.
/// The arguments are references: under -ffast-math, passing a NaN by value is undefined.
RW_HD RW_INLINE constexpr bool is_finite(const double& value) {
    return (bit_cast<std::uint64_t>(value) & 0x7ff0000000000000U) != 0x7ff0000000000000U;
}
RW_HD RW_INLINE constexpr bool is_nan(const double& value) {
    return (bit_cast<std::uint64_t>(value) & 0x7fffffffffffffffU) > 0x7ff0000000000000U;
}

/// Returns whether two numbers have the same bits: a comparison that -ffast-math does not change for a NaN.
RW_HD RW_INLINE constexpr bool same_bits(const double& a, const double& b) {
    return bit_cast<std::uint64_t>(a) == bit_cast<std::uint64_t>(b);
}

/// std::is_constant_evaluated for host and device.
RW_HD RW_INLINE constexpr bool is_constant_evaluated() { return __builtin_is_constant_evaluated(); }

/// Returns the upper half of the product of two 32-bit numbers.
RW_HD RW_INLINE constexpr std::uint32_t upper_product(std::uint32_t a, std::uint32_t b) {
#if defined(RW_GPU_CODE)
    // One instruction, which also adds; nvcc takes two for the expression below.
    if (!is_constant_evaluated()) return __umulhi(a, b);
#endif
    return static_cast<std::uint32_t>(std::uint64_t{a} * b >> 32);
}

}  // namespace ropewalk::detail
