// Positions of the tokens of a call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "ropewalk/core/buffer.hpp"
#include "ropewalk/core/error.hpp"
#include "ropewalk/core/phase.hpp"

namespace ropewalk {

/// Positions per token of an encoding with several axes (M-RoPE: t, h, w).
inline constexpr std::size_t position_axes = 3;

/// Token t of every sequence has position first + t.
struct offset {
    std::int64_t first = 0;
};

/// Every token moves by the same distance, forward or back: tokens that were encoded at p end at p + distance. A pair
/// is rotated by distance · θ'. Magnitudes (xPos) change by the distance alone, wherever their centre is, and attention
/// factors are not applied again. For cached keys whose positions all change by one number.
struct shift {
    std::int64_t distance = 0;
};

/// A non-owning view of integers of 32 or 64 bits, one per sequence. One entry is shared by all sequences.
struct sequence_integers {
    const void* data = nullptr;
    std::int64_t count = -1;  ///< -1: absent
    bool wide = true;         ///< std::int64_t, otherwise std::int32_t

    constexpr sequence_integers() = default;
    template <class Values>
        requires(detail::outlives_call<Values> && std::convertible_to<Values, std::span<const std::int32_t>>)
    constexpr sequence_integers(Values&& values) : wide(false) {  // NOLINT
        keep(std::span<const std::int32_t>(values));
    }
    template <class Values>
        requires(detail::outlives_call<Values> && std::convertible_to<Values, std::span<const std::int64_t>>)
    constexpr sequence_integers(Values&& values) {  // NOLINT
        keep(std::span<const std::int64_t>(values));
    }

    [[nodiscard]] constexpr bool exists() const { return count >= 0; }

private:
    template <class I>
    constexpr void keep(std::span<const I> values) {
        data = values.data(), count = static_cast<std::int64_t>(values.size());
    }
};

/// A non-owning view of the positions of the tokens: one start, one start per batch row, explicit ids [tokens] or
/// [batch, tokens], the bounds of ragged sequences, or a shift. Ids may be negative and may come in any order.
struct positions {
    enum class kind : std::uint8_t { offset, ids32, ids64, fixed, cu_seqlens32, cu_seqlens64, shift, row_offsets };

    kind source = kind::offset;
    std::int64_t first = 0;        ///< position of the first token, for `offset` and `cu_seqlens`; a shift's distance
    const void* data = nullptr;    ///< ids, or the bounds of ragged sequences
    std::int64_t count = 0;        ///< ids per batch row, or entries of cu_seqlens
    std::int64_t rows = 1;         ///< batch rows of ids; 1 is shared by all batch rows
    std::int64_t stride_row = 0;   ///< ids from one batch row to the next
    std::int64_t axes = 1;         ///< positions per token: 1 or position_axes
    std::int64_t stride_axis = 0;  ///< ids from one axis to the next
    sequence_integers offsets{};   ///< of `row_offsets`, and of ragged sequences that have one each in place of `first`

    /// Returns whether `data` is the bounds of ragged sequences.
    [[nodiscard]] constexpr bool ragged() const { return source == kind::cu_seqlens32 || source == kind::cu_seqlens64; }

    constexpr positions() = default;
    constexpr positions(offset start) : first(start.first) {}  // NOLINT(google-explicit-constructor)
    constexpr positions(ropewalk::shift by)                    // NOLINT(google-explicit-constructor)
        : source(kind::shift), first(by.distance) {}
};

// positions keep a pointer to the numbers, which must outlive them. A temporary container is refused when it compiles.

/// Explicit ids [tokens], shared by all batch rows.
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
/// Explicit fractional positions.
constexpr positions ids(std::span<const fixed_position> values) {
    positions p;
    p.source = positions::kind::fixed, p.data = values.data(), p.count = static_cast<std::int64_t>(values.size());
    return p;
}

namespace detail {

/// Splits ids [batch, tokens] into rows.
constexpr positions in_rows(positions p, std::int64_t batch) {
    RW_EXPECTS(batch > 0 && p.count % batch == 0, "{} positions cannot be split into {} equal rows", p.count, batch);
    p.rows = batch, p.count /= batch, p.stride_row = p.count;
    return p;
}

/// Splits ids [position_axes, batch, tokens] into axes and rows.
constexpr positions on_axes(positions p, std::int64_t batch) {
    constexpr auto axes = static_cast<std::int64_t>(position_axes);
    RW_EXPECTS(batch > 0 && p.count % axes == 0 && p.count / axes % batch == 0,
               "{} positions cannot be split into {} axes of {} equal rows", p.count, axes, batch);
    p.axes = axes, p.rows = batch, p.count = p.count / axes / batch, p.stride_row = p.count,
    p.stride_axis = p.count * batch;
    return p;
}

}  // namespace detail

/// Explicit ids [batch, tokens], contiguous. Throws ropewalk::error unless `batch` divides their number. (Overloads
/// instead of a template, which would not convert a vector or a span of mutable ids.)
constexpr positions ids(std::span<const std::int32_t> values, std::int64_t batch) {
    return detail::in_rows(ids(values), batch);
}
constexpr positions ids(std::span<const std::int64_t> values, std::int64_t batch) {
    return detail::in_rows(ids(values), batch);
}
constexpr positions ids(std::span<const fixed_position> values, std::int64_t batch) {
    return detail::in_rows(ids(values), batch);
}

/// Explicit ids [position_axes, batch, tokens] for encodings with several positions per token (M-RoPE). Throws
/// ropewalk::error unless position_axes · batch divides their number.
constexpr positions axis_ids(std::span<const std::int32_t> values, std::int64_t batch = 1) {
    return detail::on_axes(ids(values), batch);
}
constexpr positions axis_ids(std::span<const std::int64_t> values, std::int64_t batch = 1) {
    return detail::on_axes(ids(values), batch);
}

/// Token t of batch row b has position values[b] + t, as after caches of different lengths. One value is shared by all
/// rows.
constexpr positions offsets(std::span<const std::int32_t> values) {
    positions p;
    p.source = positions::kind::row_offsets, p.offsets = values;
    return p;
}
constexpr positions offsets(std::span<const std::int64_t> values) {
    positions p;
    p.source = positions::kind::row_offsets, p.offsets = values;
    return p;
}

/// A ragged batch: sequence i has tokens [starts[i], starts[i + 1]), and its positions count from `first`. `starts`
/// begins with 0, ascends and ends with the number of tokens, as the `cu_seqlens` of flash-attention do.
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

/// A ragged batch where the positions of sequence i count from offsets[i], as for prompts that continue caches of
/// different lengths. One offset is shared by all sequences.
constexpr positions cu_seqlens(std::span<const std::int32_t> starts, const sequence_integers& offsets) {
    positions p = cu_seqlens(starts);
    p.offsets = offsets;
    return p;
}
constexpr positions cu_seqlens(std::span<const std::int64_t> starts, const sequence_integers& offsets) {
    positions p = cu_seqlens(starts);
    p.offsets = offsets;
    return p;
}

namespace detail {

template <class Ids>
concept KeptIds = outlives_call<Ids> && (std::convertible_to<Ids, std::span<const std::int32_t>> ||
                                         std::convertible_to<Ids, std::span<const std::int64_t>> ||
                                         std::convertible_to<Ids, std::span<const fixed_position>>);

/// Reports numbers of which no pointer can be kept, with one message.
template <class Ids>
constexpr positions refuse_ids() {
    static_assert(outlives_call<Ids>, "positions keep a pointer to the numbers: give the temporary container a name");
    static_assert(!outlives_call<Ids> || KeptIds<Ids>,
                  "positions are a span, an array or a container of std::int32_t or std::int64_t");
    return {};
}

}  // namespace detail

template <class Ids, class... Batch>
    requires(!detail::KeptIds<Ids>)
constexpr positions ids(Ids&& /*values*/, Batch... /*batch*/) {
    return detail::refuse_ids<Ids>();
}
template <class Ids, class... Batch>
    requires(!detail::KeptIds<Ids>)
constexpr positions axis_ids(Ids&& /*values*/, Batch... /*batch*/) {
    return detail::refuse_ids<Ids>();
}
template <class Offsets>
    requires(!detail::KeptIds<Offsets>)
constexpr positions offsets(Offsets&& /*values*/) {
    return detail::refuse_ids<Offsets>();
}
template <class Starts, class... First>
    requires(!detail::KeptIds<Starts>)
constexpr positions cu_seqlens(Starts&& /*starts*/, First&&... /*first*/) {
    return detail::refuse_ids<Starts>();
}

}  // namespace ropewalk
