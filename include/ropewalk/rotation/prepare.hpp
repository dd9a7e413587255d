// From arguments to a checked call. How positions are read is the caller's: a host reads its own memory only.
#pragma once

#include "ropewalk/rotation/validate.hpp"

namespace ropewalk::detail {

/// Several positions a token need an encoding whose pairs choose among them.
inline void check_axes(const Encoding& encoding, const positions& where) {
    constexpr auto several = static_cast<std::int64_t>(position_axes);
    RW_EXPECTS(where.axes == 1 || where.axes == several, "positions has {} axes, expected 1 or {}", where.axes,
               several);
    RW_EXPECTS(where.axes == 1 || encoding.has_axes(), "'{}' takes one position a token, got {}", encoding.expression,
               where.axes);
    RW_EXPECTS(where.axes == 1 || where.source == positions::kind::ids32 || where.source == positions::kind::ids64,
               "several positions a token must be ids");
}

/// The steps of the encoding, a row an axis where a token has several positions.
inline turn_term steps_of(const Encoding& encoding, const positions& where) {
    check_axes(encoding, where);
    turn_term term;
    term.axes = where.axes;
    term.steps = where.axes == 1 ? encoding.steps.data() : encoding.axis_steps.data();
    return term;
}

/// One that make_encoding() has not made turns nothing, or not the elements of its geometry.
inline void check_made(const Encoding& encoding) {
    RW_EXPECTS(encoding.pairs() > 0 && encoding.pairs() == encoding.geometry.pairs(),
               "the encoding has steps for {} pairs, its geometry {}: it was not made by make_encoding()",
               encoding.pairs(), encoding.geometry.pairs());
}

inline void check_layout(const Encoding& encoding, layout_kind layout) {
    const auto named = encoding.geometry.layout;
    RW_EXPECTS(!named || *named == layout, "the encoding is for the layout {}, the call for {}",
               to_string(named.value_or(layout)), to_string(layout));
}

/// The checked positions of a call whose tokens have an offset or ids. `readable`: whether the host may read those.
inline position_source read_offset_or_ids(const positions& where, std::int64_t batch, std::int64_t tokens,
                                          bool readable) {
    if (where.source == positions::kind::offset) {
        RW_EXPECTS(where.first <= std::numeric_limits<std::int64_t>::max() - tokens,
                   "offset {} and {} tokens leave the 64-bit positions", where.first, tokens);
        return {positions::kind::offset, true, where.first, nullptr, 0, 0, 0};
    }
    RW_EXPECTS(where.count >= tokens, "positions has {} entries for {} tokens", where.count, tokens);
    RW_EXPECTS(where.rows == 1 || where.rows == batch, "positions has {} rows for a batch of {}", where.rows, batch);
    // A longer row serves by its beginning, but one as long as all rows together is a batch which nobody has named.
    RW_EXPECTS(
        where.rows != 1 || where.count == tokens || tokens == 0 || where.count % tokens != 0 ||
            where.count / tokens != batch,
        "positions has one row of {} entries for a batch of {} with {} tokens each: ids(values, {}) is a row each",
        where.count, batch, tokens, batch);
    return {where.source,
            readable,
            0,
            where.data,
            where.rows == 1 ? 0 : where.stride_row,
            where.axes == 1 ? 0 : where.stride_axis,
            0};
}

inline bool is_ragged(const positions& where) {
    return where.source == positions::kind::cu_seqlens32 || where.source == positions::kind::cu_seqlens64;
}

/// What can be said of a ragged batch without reading where its sequences start.
inline void check_ragged(const positions& where, std::int64_t batch, std::int64_t tokens) {
    RW_EXPECTS(batch == 1, "cu_seqlens needs packed tokens [tokens, heads, head_dim], got a batch of {}", batch);
    RW_EXPECTS(where.first <= std::numeric_limits<std::int64_t>::max() - tokens,
               "offset {} and {} tokens leave the 64-bit positions", where.first, tokens);
}

/// `read(encoding, where, which)` returns the position_source of term number `which`.
template <class Read>
turn_term make_term(const Encoding& encoding, const positions& where, const call& work, int which, const Read& read) {
    turn_term term = steps_of(encoding, where);
    term.magnitude_rates = encoding.has_magnitude() ? encoding.magnitude_rates.data() : nullptr;
    term.centre = encoding.centre;
    term.where = read(encoding, where, which);
    check_reach(encoding, term.where, work.batch(), work.tokens(), work.any().type);
    return term;
}

/// Checks a rotation and completes `work`, whose tensors are set.
template <class Read>
void prepare_rotation(call& work, layout_kind layout, const Encoding& encoding, const positions& where,
                      direction direction, const cos_sin_table& table, const Read& read) {
    work.rotary_offset = encoding.geometry.rotary_offset;
    work.pairs = encoding.pairs();
    check_made(encoding);
    check_layout(encoding, layout);
    check_tensors(work, encoding.geometry.head_dim);
    work.turn = make_term(encoding, where, work, 0, read);
    work.has_magnitude = encoding.has_magnitude();
    const bool undoes = direction == direction::inverse || direction == direction::inverse_adjoint;
    work.negate_angle = direction == direction::inverse || direction == direction::adjoint;
    work.invert_magnitude = undoes;
    work.factor = static_cast<float>(undoes ? 1 / encoding.attention_factor : encoding.attention_factor);
    work.table = table;
    if (work.table.exists()) check_table(work.table, work);
}

/// Checks the way of cached keys from one encoding and position to another, and completes `work`, whose keys are set.
template <class Read>
void prepare_rerotation(call& work, layout_kind layout, const Encoding& from, const positions& from_where,
                        const Encoding& to, const positions& to_where, const Read& read) {
    work.rotary_offset = to.geometry.rotary_offset;
    work.pairs = to.pairs();
    check_made(from);
    check_made(to);
    check_layout(from, layout);
    check_layout(to, layout);
    RW_EXPECTS(from.geometry.head_dim == to.geometry.head_dim && from.pairs() == to.pairs() &&
                   from.geometry.rotary_offset == to.geometry.rotary_offset,
               "both encodings must turn the same elements, got {} and {} of head_dim {} and {} at {} and {}",
               from.geometry.width(), to.geometry.width(), from.geometry.head_dim, to.geometry.head_dim,
               from.geometry.rotary_offset, to.geometry.rotary_offset);
    check_tensors(work, to.geometry.head_dim);
    work.turn = make_term(to, to_where, work, 0, read);
    work.unturn = make_term(from, from_where, work, 1, read);
    work.has_magnitude = from.has_magnitude() || to.has_magnitude();
    if (work.has_magnitude) check_shift(work, from, to);
    const double ratio = to.attention_factor / from.attention_factor;
    RW_EXPECTS(fits_float(ratio), "from '{}' to '{}' the attention factor changes by {}, which a float does not hold",
               from.expression, to.expression, ratio);
    work.factor = static_cast<float>(ratio);
}

}  // namespace ropewalk::detail
