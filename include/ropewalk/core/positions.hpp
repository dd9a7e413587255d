// Which index each token has.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "ropewalk/core/error.hpp"
#include "ropewalk/core/phase.hpp"

namespace ropewalk {

/// Positions a token of an encoding that has several (M-RoPE: t, h, w).
inline constexpr std::size_t position_axes = 3;

/// Token t of every sequence has index first + t.
struct offset {
    std::int64_t first = 0;
};

/// The indices of the tokens in memory that belongs to somebody else: [tokens], or [batch, tokens] with a stride.
/// A token's index may be negative, and need not ascend.
struct positions {
    enum class kind : std::uint8_t { offset, ids32, ids64, fixed, cu_seqlens32, cu_seqlens64 };

    kind source = kind::offset;
    std::int64_t first = 0;        ///< added to every index of `offset` and `cu_seqlens`
    const void* data = nullptr;    ///< ids, or the starts of ragged sequences
    std::int64_t count = 0;        ///< entries a batch row, or of cu_seqlens
    std::int64_t rows = 1;         ///< batch rows of ids; 1 serves every row
    std::int64_t stride_row = 0;   ///< entries from one batch row to the next
    std::int64_t axes = 1;         ///< positions a token: 1, or position_axes
    std::int64_t stride_axis = 0;  ///< entries from one of them to the next

    /// Whether `data` holds the starts of ragged sequences.
    [[nodiscard]] constexpr bool ragged() const { return source == kind::cu_seqlens32 || source == kind::cu_seqlens64; }

    constexpr positions() = default;
    constexpr positions(offset start) : first(start.first) {}  // NOLINT(google-explicit-constructor)
};

/// Explicit indices, the same for every batch row.
constexpr positions ids(std::span<const std::int32_t> values) {
    positions p;
    p.source = positions::kind::ids32, p.data = values.data(), p.count = static_cast<std::int64_t>(values.size());
    return p;
}
constexpr positions ids(std::span<const std::int64_t> values) {
    positions p;
    p.source = positions::kind::ids64, p.data = values.data(), p.count = static_cast<std::int64_t>(values.size());
    return p;
}
/// Explicit numbers between the tokens.
constexpr positions ids(std::span<const fixed_position> values) {
    positions p;
    p.source = positions::kind::fixed, p.data = values.data(), p.count = static_cast<std::int64_t>(values.size());
    return p;
}

namespace detail {

constexpr positions in_rows(positions p, std::int64_t batch) {
    RW_EXPECTS(batch > 0 && p.count % batch == 0, "{} positions make no {} rows of one length", p.count, batch);
    p.rows = batch, p.count /= batch, p.stride_row = p.count;
    return p;
}

constexpr positions on_axes(positions p, std::int64_t batch) {
    constexpr auto axes = static_cast<std::int64_t>(position_axes);
    RW_EXPECTS(batch > 0 && p.count % axes == 0 && p.count / axes % batch == 0,
               "{} positions make no {} axes of {} rows of one length", p.count, axes, batch);
    p.axes = axes, p.rows = batch, p.count /= axes * batch, p.stride_row = p.count, p.stride_axis = p.count * batch;
    return p;
}

}  // namespace detail

/// Explicit indices [batch, tokens], row by row. Throws where the rows would differ in length. (No templates: those
/// would not convert a vector or a span of mutable indices.)
constexpr positions ids(std::span<const std::int32_t> values, std::int64_t batch) {
    return detail::in_rows(ids(values), batch);
}
constexpr positions ids(std::span<const std::int64_t> values, std::int64_t batch) {
    return detail::in_rows(ids(values), batch);
}
constexpr positions ids(std::span<const fixed_position> values, std::int64_t batch) {
    return detail::in_rows(ids(values), batch);
}

/// Several indices a token [position_axes, batch, tokens], for encodings whose pairs follow one each (M-RoPE). Throws
/// where the axes or the rows would differ in length.
constexpr positions axis_ids(std::span<const std::int32_t> values, std::int64_t batch = 1) {
    return detail::on_axes(ids(values), batch);
}
constexpr positions axis_ids(std::span<const std::int64_t> values, std::int64_t batch = 1) {
    return detail::on_axes(ids(values), batch);
}

/// A ragged batch: sequence i is tokens [starts[i], starts[i + 1]), each counted from `first`. `starts` begins with 0,
/// ascends and ends with the number of tokens (the `cu_seqlens` of flash-attention).
constexpr positions cu_seqlens(std::span<const std::int32_t> starts, std::int64_t first = 0) {
    positions p = ids(starts);
    p.source = positions::kind::cu_seqlens32, p.first = first;
    return p;
}
constexpr positions cu_seqlens(std::span<const std::int64_t> starts, std::int64_t first = 0) {
    positions p = ids(starts);
    p.source = positions::kind::cu_seqlens64, p.first = first;
    return p;
}

}  // namespace ropewalk
