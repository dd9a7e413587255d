// Division that splits an index into coordinates.
#pragma once

#include <cstdint>

#include "ropewalk/core/compiler.hpp"

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

/// Division of 32-bit numbers by a number known in advance: a product and shifts (Granlund and Montgomery, "Division by
/// Invariant Integers using Multiplication", 1994, figure 4.1). Exact for every n and every divisor above 0.
struct divider {
    std::uint32_t divisor = 1, multiplier = 1, first_shift = 0, second_shift = 0;

    constexpr divider() = default;
    constexpr explicit divider(std::uint32_t d) : divisor(d) {
        std::uint32_t bits = 0;  // the logarithm of d, rounded up
        while ((std::uint64_t{1} << bits) < d) ++bits;
        multiplier = static_cast<std::uint32_t>((((std::uint64_t{1} << bits) - d) << 32) / d + 1);
        first_shift = bits == 0 ? 0 : 1;
        second_shift = bits == 0 ? 0 : bits - 1;
    }

    [[nodiscard]] RW_HD RW_INLINE constexpr std::uint32_t operator()(std::uint32_t n) const {
        const auto product = static_cast<std::uint32_t>(std::uint64_t{n} * multiplier >> 32);
        return (product + ((n - product) >> first_shift)) >> second_shift;
    }
};

/// The coordinates of an index in an array [.., outer, middle, inner].
struct index_parts {
    std::int64_t rest, outer, middle, inner;
};

/// Splits an index into coordinates. Without a division where the index and all extents fit 32 bits.
struct index_splitter {
    std::int64_t outer = 1, middle = 1, inner = 1;
    bool narrow = true;  ///< every extent fits 32 bits
    divider by_outer, by_middle, by_inner;

    constexpr index_splitter() = default;
    /// Extents of 0, of empty arrays, count as 1.
    constexpr index_splitter(std::int64_t outer_, std::int64_t middle_, std::int64_t inner_)
        : outer(outer_ == 0 ? 1 : outer_), middle(middle_ == 0 ? 1 : middle_), inner(inner_ == 0 ? 1 : inner_) {
        narrow = ((outer | middle | inner) >> 32) == 0;
        if (!narrow) return;
        by_outer = divider(static_cast<std::uint32_t>(outer));
        by_middle = divider(static_cast<std::uint32_t>(middle));
        by_inner = divider(static_cast<std::uint32_t>(inner));
    }

    [[nodiscard]] RW_HD RW_INLINE constexpr index_parts operator()(std::int64_t n) const {
        if (narrow && (n >> 32) == 0) {
            const auto index = static_cast<std::uint32_t>(n);
            const std::uint32_t a = by_inner(index), b = by_middle(a), c = by_outer(b);
            return {c, b - c * by_outer.divisor, a - b * by_middle.divisor, index - a * by_inner.divisor};
        }
        const std::int64_t a = n / inner, b = a / middle, c = b / outer;
        return {c, b - c * outer, a - b * middle, n - a * inner};
    }
};

}  // namespace ropewalk::detail
