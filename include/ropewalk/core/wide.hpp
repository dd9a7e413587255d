// 128-bit unsigned multiplication and division, portable and constexpr.
#pragma once

#include <cstdint>

#include "ropewalk/core/compiler.hpp"

namespace ropewalk::detail {

/// An unsigned 128-bit number: high · 2^64 + low.
struct wide {
    std::uint64_t high = 0;
    std::uint64_t low = 0;
};

/// Returns the exact product of two 64-bit numbers.
RW_HD constexpr wide multiply(std::uint64_t a, std::uint64_t b) {
    const std::uint64_t mask = 0xffffffffU;
    const std::uint64_t a0 = a & mask, a1 = a >> 32, b0 = b & mask, b1 = b >> 32;
    const std::uint64_t low = a0 * b0;
    const std::uint64_t middle = a1 * b0 + (low >> 32);
    const std::uint64_t other = a0 * b1 + (middle & mask);
    return {a1 * b1 + (middle >> 32) + (other >> 32), (other << 32) | (low & mask)};
}

/// Returns the product of two 64-bit numbers, or 2^63 − 1 if it is larger.
RW_HD constexpr std::uint64_t saturating_product(std::uint64_t a, std::uint64_t b) {
    constexpr std::uint64_t limit = ~std::uint64_t{0} >> 1;
    const wide product = multiply(a, b);
    return product.high == 0 && product.low <= limit ? product.low : limit;
}

/// Returns the sum of two numbers of at most 2^63 − 1, or 2^63 − 1 if it is larger.
RW_HD constexpr std::uint64_t saturating_sum(std::uint64_t a, std::uint64_t b) {
    constexpr std::uint64_t limit = ~std::uint64_t{0} >> 1;
    return a + b < limit ? a + b : limit;
}

/// Returns the next 32 bits of a quotient, floor((rest · 2^32 + next) / d) for rest < d, and sets rest to the
/// remainder. The top bit of d must be set: the estimate from its upper half is then too large by at most 2 (Knuth, The
/// Art of Computer Programming, volume 2, section 4.3.1, algorithm D).
RW_HD constexpr std::uint64_t divide_digit(std::uint64_t& rest, std::uint64_t next, std::uint64_t d) {
    const std::uint64_t upper = d >> 32, lower = d & 0xffffffffU;
    std::uint64_t digit = rest / upper, left = rest % upper;
    while ((digit >> 32) != 0 || digit * lower > ((left << 32) | next)) {
        --digit;
        left += upper;
        if ((left >> 32) != 0) break;
    }
    rest = ((rest << 32) | next) - digit * d;
    return digit;
}

/// Returns floor(n / d) for n.high < d, and the remainder in *remainder unless that is null.
RW_HD constexpr std::uint64_t divide(wide n, std::uint64_t d, std::uint64_t* remainder = nullptr) {
    int shift = 0;
    for (; (d >> 63) == 0; d <<= 1) ++shift;
    if (shift > 0) n = {(n.high << shift) | (n.low >> (64 - shift)), n.low << shift};
    std::uint64_t rest = n.high;
    const std::uint64_t first = divide_digit(rest, n.low >> 32, d);
    const std::uint64_t second = divide_digit(rest, n.low & 0xffffffffU, d);
    if (remainder != nullptr) *remainder = rest >> shift;
    return (first << 32) | second;
}

}  // namespace ropewalk::detail
