// From arguments to a checked job.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "ropewalk/cpu/checks.hpp"

namespace ropewalk::cpu {

/// A job and the memory that it points to, beside the caller's own.
struct plan {
    /// What most calls do without.
    struct memory {
        std::vector<std::int64_t> spread[2];    ///< indices of a ragged batch
        std::vector<fixed_position> placed[2];  ///< numbers of a position policy
        std::vector<std::uint64_t> no_decay;
    };

    job work;
    std::unique_ptr<memory> more;

    memory& own() {
        if (!more) more = std::make_unique<memory>();
        return *more;
    }
};

namespace detail {

inline std::int64_t start_at(const positions& where, std::int64_t i) {
    return where.source == positions::kind::cu_seqlens32 ? static_cast<const std::int32_t*>(where.data)[i]
                                                         : static_cast<const std::int64_t*>(where.data)[i];
}

/// The index of each token of a ragged batch, counted from `first` in its own sequence.
inline std::vector<std::int64_t> spread_sequences(const positions& where, std::int64_t tokens) {
    RW_EXPECTS(where.count >= 1 && start_at(where, 0) == 0, "cu_seqlens must begin with 0, got {}",
               where.count < 1 ? "nothing" : std::to_string(start_at(where, 0)));
    for (std::int64_t i = 1; i < where.count; ++i) {
        RW_EXPECTS(start_at(where, i) >= start_at(where, i - 1), "cu_seqlens must ascend, got {} behind {} at entry {}",
                   start_at(where, i), start_at(where, i - 1), i);
    }
    RW_EXPECTS(where.first <= std::numeric_limits<std::int64_t>::max() - tokens,
               "offset {} and {} tokens leave the 64-bit positions", where.first, tokens);
    RW_EXPECTS(start_at(where, where.count - 1) == tokens, "cu_seqlens ends with {} but there are {} tokens",
               start_at(where, where.count - 1), tokens);
    std::vector<std::int64_t> indices(static_cast<std::size_t>(tokens));
    for (std::int64_t i = 1; i < where.count; ++i) {
        const std::int64_t start = start_at(where, i - 1);
        for (std::int64_t t = start; t < start_at(where, i); ++t)
            indices[static_cast<std::size_t>(t)] = where.first + t - start;
    }
    return indices;
}

/// Positions as a kernel reads them, without the encoding's position policy.
inline position_source read_positions(const positions& where, std::int64_t batch, std::int64_t tokens, plan& owner,
                                      int which) {
    switch (where.source) {
        case positions::kind::offset:
            RW_EXPECTS(where.first <= std::numeric_limits<std::int64_t>::max() - tokens,
                       "offset {} and {} tokens leave the 64-bit positions", where.first, tokens);
            return {positions::kind::offset, where.first, nullptr, 0, 0};
        case positions::kind::cu_seqlens32:
        case positions::kind::cu_seqlens64:
            RW_EXPECTS(batch == 1, "cu_seqlens needs packed tokens [tokens, heads, head_dim], got a batch of {}",
                       batch);
            owner.own().spread[which] = spread_sequences(where, tokens);
            return {positions::kind::ids64, 0, owner.own().spread[which].data(), 0, 0};
        default:
            RW_EXPECTS(where.count >= tokens, "positions has {} entries for {} tokens", where.count, tokens);
            RW_EXPECTS(where.rows == 1 || where.rows == batch, "positions has {} rows for a batch of {}", where.rows,
                       batch);
            return {where.source, 0, where.data, where.rows == 1 ? 0 : where.stride_row,
                    where.axes == 1 ? 0 : where.stride_axis};
    }
}

/// Looks indices up among the numbers that the encoding's position policy draws, each batch row its own.
inline position_source place(const Encoding& encoding, const position_source& where, std::int64_t batch,
                             std::int64_t tokens, plan& owner, int which) {
    if (!encoding.place || tokens == 0) return where;
    RW_EXPECTS(where.source != positions::kind::fixed, "'{}' takes indices, not numbers between them",
               encoding.expression);
    const bool plain = where.source == positions::kind::offset && where.first == 0;
    RW_EXPECTS(encoding.placed_tokens > 0 || plain,
               "'{}' needs its length or the sequence_length of the geometry when positions are given",
               encoding.expression);
    const std::int64_t n = encoding.placed_tokens > 0 ? encoding.placed_tokens : tokens;
    check_range(where, batch, tokens, [&](std::int64_t index) {
        RW_EXPECTS(index >= 0 && index < n, "'{}' draws {} positions, index {} is not among them", encoding.expression,
                   n, index);
    });
    std::vector<fixed_position>& placed = owner.own().placed[which];
    placed.resize(static_cast<std::size_t>(batch * tokens));
    std::vector<fixed_position> numbers(static_cast<std::size_t>(n));
    for (std::int64_t row = 0; row < batch; ++row) {
        encoding.place(static_cast<std::uint64_t>(row), numbers);
        for (std::int64_t token = 0; token < tokens; ++token) {
            const std::int64_t index = index_at(where, row, token);
            placed[static_cast<std::size_t>(row * tokens + token)] = numbers[static_cast<std::size_t>(index)];
        }
    }
    return {positions::kind::fixed, 0, placed.data(), tokens, 0};
}

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

inline turn_term make_term(const Encoding& encoding, const positions& where, const job& work, plan& owner, int which) {
    const std::int64_t batch = work.batch(), tokens = work.tokens();
    turn_term term = steps_of(encoding, where);
    term.decay = encoding.has_decay() ? encoding.decay.data() : nullptr;
    term.centre = encoding.centre;
    term.where = place(encoding, read_positions(where, batch, tokens, owner, which), batch, tokens, owner, which);
    check_reach(encoding, term.where, batch, tokens, work.q_in.exists() ? work.q_in.type : work.k_in.type);
    return term;
}

inline void check_layout(const Encoding& encoding, layout_kind layout) {
    const auto named = encoding.geometry.layout;
    RW_EXPECTS(!named || *named == layout, "the encoding is for the layout {}, the call for {}",
               to_string(named.value_or(layout)), to_string(layout));
}

/// Bytes that the call reads.
inline std::int64_t bytes_of(const job& work) {
    return (work.q_in.elements() + work.k_in.elements()) *
           static_cast<std::int64_t>(size_of(work.q_in.exists() ? work.q_in.type : work.k_in.type));
}

/// Chooses the order of the loops from the size and the strides.
inline void choose_loops(job& work) {
    const tensor& t = work.q_in.exists() ? work.q_in : work.k_in;
    const std::int64_t bytes = bytes_of(work);
    work.size = bytes <= 1024 * 1024 ? footprint::l2 : bytes <= 16 * 1024 * 1024 ? footprint::l3 : footprint::memory;
    const std::int64_t head = t.stride_head < 0 ? -t.stride_head : t.stride_head;
    const std::int64_t token = t.stride_token < 0 ? -t.stride_token : t.stride_token;
    work.heads_outside = t.heads > 1 && t.tokens > 1 && head > token;
    // Queries and keys that alternate token by token are two streams, which cost even a plain scale up to 0.4 of its
    // speed out of cache; runs of about 2 MiB cost nothing.
    const bool two_streams = work.q_in.exists() && work.k_in.exists() && work.size == footprint::memory;
    const std::int64_t tile = work.heads_outside ? 16 : two_streams ? 128 : 1;
    work.tile = t.tokens < tile ? t.tokens : tile;
}

}  // namespace detail

/// Checks a rotation and prepares it. Tensors whose data is null are absent; in place where input and output agree.
/// The encoding, the positions and the table must outlive the plan.
inline plan make_plan(layout_kind layout, const tensor& q, const tensor& k, const tensor& q_out, const tensor& k_out,
                      const Encoding& encoding, const positions& where, const options& chosen) {
    plan made;
    job& work = made.work;
    work.q_in = q, work.k_in = k, work.q_out = q_out, work.k_out = k_out;
    work.rotary_offset = encoding.geometry.rotary_offset;
    work.pairs = encoding.pairs();
    detail::check_layout(encoding, layout);
    detail::check_tensors(work, encoding.geometry.head_dim);
    work.turn = detail::make_term(encoding, where, work, made, 0);
    work.decays = encoding.has_decay();
    const bool undoes = chosen.way == direction::inverse || chosen.way == direction::inverse_adjoint;
    work.negate_angle = chosen.way == direction::inverse || chosen.way == direction::adjoint;
    work.swap_decay = undoes;
    work.factor = static_cast<float>(undoes ? 1 / encoding.attention_factor : encoding.attention_factor);
    work.table = chosen.table;
    if (work.table.exists()) detail::check_table(work.table, work);
    detail::choose_loops(work);
    return made;
}

/// Checks and prepares the way of cached keys from one encoding and position to another.
inline plan make_rerotation_plan(layout_kind layout, const tensor& k, const tensor& k_out, const Encoding& from,
                                 const positions& from_where, const Encoding& to, const positions& to_where) {
    plan made;
    job& work = made.work;
    work.k_in = k, work.k_out = k_out;
    work.rotary_offset = to.geometry.rotary_offset;
    work.pairs = to.pairs();
    detail::check_layout(from, layout);
    detail::check_layout(to, layout);
    RW_EXPECTS(from.geometry.head_dim == to.geometry.head_dim && from.pairs() == to.pairs() &&
                   from.geometry.rotary_offset == to.geometry.rotary_offset,
               "both encodings must turn the same elements, got {} and {} of head_dim {} and {} at {} and {}",
               from.geometry.width(), to.geometry.width(), from.geometry.head_dim, to.geometry.head_dim,
               from.geometry.rotary_offset, to.geometry.rotary_offset);
    detail::check_tensors(work, to.geometry.head_dim);
    work.turn = detail::make_term(to, to_where, work, made, 0);
    work.unturn = detail::make_term(from, from_where, work, made, 1);
    work.decays = from.has_decay() || to.has_decay();
    if (work.decays) detail::check_shift(work, from, to);
    if (work.decays && !to.has_decay()) {
        made.own().no_decay.assign(static_cast<std::size_t>(work.pairs), 0);
        work.turn.decay = made.own().no_decay.data();
    }
    work.factor = static_cast<float>(to.attention_factor / from.attention_factor);
    detail::choose_loops(work);
    return made;
}

/// Checks and prepares a table of `tokens` rows with `columns` floats each.
inline plan make_table_plan(const Encoding& encoding, const positions& where, std::int64_t tokens, std::int64_t columns,
                            std::span<float> cos, std::span<float> sin) {
    RW_EXPECTS(tokens >= 0, "tokens must not be negative, got {}", tokens);
    RW_EXPECTS(columns == encoding.pairs() || columns == 2 * encoding.pairs(), "a row has {} or {} columns, got {}",
               encoding.pairs(), 2 * encoding.pairs(), columns);
    const auto floats = static_cast<std::size_t>(tokens * columns);
    RW_EXPECTS(cos.size() >= floats && sin.size() >= floats, "{} tokens of {} columns need {} floats, got {} and {}",
               tokens, columns, floats, cos.size(), sin.size());
    RW_EXPECTS(floats == 0 || cos.data() + floats <= sin.data() || sin.data() + floats <= cos.data(),
               "cos at {} and sin at {} overlap", cos.data(), sin.data());
    plan made;
    job& work = made.work;
    work.q_in.tokens = tokens, work.q_in.heads = 1, work.q_in.head_dim = columns;
    work.q_in.data = tokens == 0 ? nullptr : cos.data();
    work.pairs = encoding.pairs();
    work.turn = detail::steps_of(encoding, where);
    work.turn.where = detail::place(encoding, detail::read_positions(where, 1, tokens, made, 0), 1, tokens, made, 0);
    work.table = {cos.data(), sin.data(), element_type::f32, tokens, columns, columns};
    return made;
}

}  // namespace ropewalk::cpu
