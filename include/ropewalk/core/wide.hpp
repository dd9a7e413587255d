// 64 × 64 → 128 bit unsigned arithmetic, portable and constexpr.
#pragma once

#include <cstdint>

#include "ropewalk/core/config.hpp"

namespace ropewalk::detail {

/// An unsigned 128-bit number: high · 2^64 + low.
struct wide {
    std::uint64_t high = 0;
    std::uint64_t low = 0;
};

/// The exact product of two 64-bit numbers.
RW_HD constexpr wide multiply(std::uint64_t a, std::uint64_t b) {
    const std::uint64_t mask = 0xffffffffU;
    const std::uint64_t a0 = a & mask, a1 = a >> 32, b0 = b & mask, b1 = b >> 32;
    const std::uint64_t low = a0 * b0;
    const std::uint64_t middle = a1 * b0 + (low >> 32);
    const std::uint64_t other = a0 * b1 + (middle & mask);
    return {a1 * b1 + (middle >> 32) + (other >> 32), (other << 32) | (low & mask)};
}

/// floor(n / d) for n.high < d, by long division; the remainder is left in *remainder when it is asked for.
RW_HD constexpr std::uint64_t divide(wide n, std::uint64_t d, std::uint64_t* remainder = nullptr) {
    std::uint64_t rest = n.high, quotient = 0;
    for (int bit = 63; bit >= 0; --bit) {
        const bool carry = (rest >> 63) != 0;
        rest = (rest << 1) | ((n.low >> bit) & 1U);
        quotient <<= 1;
        if (carry || rest >= d) {
            rest -= d;
            quotient |= 1U;
        }
    }
    if (remainder != nullptr) *remainder = rest;
    return quotient;
}

}  // namespace ropewalk::detail
