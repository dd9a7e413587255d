// Positions as a kernel reads them, on the CPU or on a GPU.
#pragma once

#include <cstdint>

#include "ropewalk/core/compiler.hpp"
#include "ropewalk/core/positions.hpp"

namespace ropewalk {

/// Positions of a checked call.
struct position_source {
    positions::kind source = positions::kind::offset;
    bool readable = true;  ///< whether the host may read `data`, so that checks know the values
    std::int64_t first = 0;
    const void* data = nullptr;
    std::int64_t stride_row = 0;
    std::int64_t stride_axis = 0;  ///< from one position of a token to the next, 0 where one serves all
    std::int64_t count = 0;        ///< entries of cu_seqlens, which GPUs search; the CPU's plan spreads them to ids

    /// Whether the host can tell the indices without reading memory that is not its own.
    [[nodiscard]] constexpr bool known() const { return source == positions::kind::offset || readable; }
    /// Whether `data` is where sequences start.
    [[nodiscard]] RW_HD constexpr bool ragged() const {
        return source == positions::kind::cu_seqlens32 || source == positions::kind::cu_seqlens64;
    }
};

/// The index of a token; of a number between two tokens, the lower one. Not for cu_seqlens.
RW_HD RW_INLINE std::int64_t index_at(const position_source& where, std::int64_t row, std::int64_t token) {
    const std::int64_t at = row * where.stride_row + token;
    switch (where.source) {
        case positions::kind::ids32:
            return static_cast<const std::int32_t*>(where.data)[at];
        case positions::kind::ids64:
            return static_cast<const std::int64_t*>(where.data)[at];
        case positions::kind::fixed:
            return static_cast<const fixed_position*>(where.data)[at].value >> 32;
        default:
            return where.first + token;
    }
}

/// What lies between that index and the token's number, in 2^-32 tokens.
RW_HD RW_INLINE std::uint64_t fraction_at(const position_source& where, std::int64_t row, std::int64_t token) {
    if (where.source != positions::kind::fixed) return 0;
    const std::int64_t at = row * where.stride_row + token;
    return static_cast<std::uint64_t>(static_cast<const fixed_position*>(where.data)[at].value) & 0xffffffffU;
}

/// Position number `axis` of every token.
RW_HD RW_INLINE position_source on_axis(position_source where, std::int64_t axis) {
    const std::int64_t entries = axis * where.stride_axis;
    if (where.source == positions::kind::ids32) where.data = static_cast<const std::int32_t*>(where.data) + entries;
    if (where.source == positions::kind::ids64) where.data = static_cast<const std::int64_t*>(where.data) + entries;
    return where;
}

/// A position as whole tokens and 2^-32 of one.
struct split_position {
    std::uint64_t whole = 0;
    std::uint64_t fraction = 0;
};

/// position · rate modulo 2^64: a phase where rate is a step, an exponent where it is a decay.
RW_HD RW_INLINE constexpr std::uint64_t wrapping_product(const split_position& position, std::uint64_t rate) {
    return rate * position.whole + (rate >> 32) * position.fraction +
           (((rate & 0xffffffffU) * position.fraction) >> 32);
}

}  // namespace ropewalk
