// Division that splits an index into coordinates.
#pragma once

#include <cstdint>

#include "ropewalk/core/bits.hpp"

namespace ropewalk::detail {

struct quotient {
    std::int64_t whole, rest;
};

/// n / d for n ≥ 0. Most values fit 32 bits, where a division takes a fifth of the time.
RW_HD RW_INLINE quotient divide(std::int64_t n, std::int64_t d) {
    if (((n | d) >> 32) == 0) {
        const auto small_n = static_cast<std::uint32_t>(n), small_d = static_cast<std::uint32_t>(d);
        return {small_n / small_d, small_n % small_d};
    }
    return {n / d, n % d};
}

/// Division of numbers below 2^31 by a number known in advance: a product and a shift. Exact for every divisor above 0,
/// by theorem 4.2 of Granlund and Montgomery, "Division by Invariant Integers using Multiplication" (1994), and above
/// 2^31 because the product is less than 2^63.
struct divider {
    std::uint32_t divisor = 1, multiplier = 1U << 31, shift = 0;

    constexpr divider() = default;
    constexpr explicit divider(std::uint32_t d) : divisor(d) {
        // The logarithm of d, rounded up, and 2^(31 + shift) / d, rounded up, which is below 2^32.
        while (shift < 31 && (std::uint64_t{1} << shift) < d) ++shift;
        multiplier = static_cast<std::uint32_t>(((std::uint64_t{1} << (31 + shift)) + d - 1) / d);
    }

    [[nodiscard]] RW_HD RW_INLINE constexpr std::uint32_t operator()(std::uint32_t n) const {
        return upper_product(2 * n, multiplier) >> shift;
    }
};

/// The coordinates of an index in an array [.., outer, middle, inner]. The two outer ones reach 2^32, the others 2^31.
struct index_parts {
    std::uint32_t rest, outer;
    std::int32_t middle, inner;
};

/// Splits an index into coordinates. Without a division where the index is below 2^31.
struct index_splitter {
    divider by_outer, by_middle, by_inner;

    constexpr index_splitter() = default;
    /// Extents of 0, of empty arrays, count as 1.
    constexpr index_splitter(std::uint32_t outer, std::int32_t middle, std::int32_t inner)
        : by_outer(outer == 0 ? 1 : outer),
          by_middle(middle == 0 ? 1 : static_cast<std::uint32_t>(middle)),
          by_inner(inner == 0 ? 1 : static_cast<std::uint32_t>(inner)) {}

    [[nodiscard]] RW_HD RW_INLINE constexpr index_parts operator()(std::int64_t n) const {
        const std::uint32_t outer = by_outer.divisor, middle = by_middle.divisor, inner = by_inner.divisor;
        if ((n >> 31) == 0) {
            const auto index = static_cast<std::uint32_t>(n);
            const std::uint32_t a = by_inner(index), b = by_middle(a), c = by_outer(b);
            return {c, b - c * outer, static_cast<std::int32_t>(a - b * middle),
                    static_cast<std::int32_t>(index - a * inner)};
        }
        const std::int64_t a = n / inner, b = a / middle, c = b / outer;
        return {static_cast<std::uint32_t>(c), static_cast<std::uint32_t>(b - c * outer),
                static_cast<std::int32_t>(a - b * middle), static_cast<std::int32_t>(n - a * inner)};
    }
};

}  // namespace ropewalk::detail
