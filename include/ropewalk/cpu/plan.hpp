// From arguments to a checked job.
#pragma once

#include <algorithm>
#include <limits>
#include <memory>
#include <span>
#include <vector>

#include "ropewalk/cpu/options.hpp"
#include "ropewalk/rotation/prepare.hpp"

namespace ropewalk::cpu {

/// A job and the memory that it points to, beside the caller's own.
struct plan {
    /// What most calls do without.
    struct memory {
        std::vector<std::int64_t> spread[2];    ///< indices of a ragged batch
        std::vector<fixed_position> placed[2];  ///< numbers of a position policy
        std::vector<std::uint64_t> unit_magnitude;
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
    if (!ropewalk::detail::is_ragged(where)) return ropewalk::detail::read_offset_or_ids(where, batch, tokens, true);
    ropewalk::detail::check_ragged(where, batch, tokens);
    std::vector<std::int64_t>& indices = owner.own().spread[which];
    indices = spread_sequences(where, tokens);
    return {positions::kind::ids64, true, 0, indices.data(), 0, 0, 0};
}

/// Looks indices up among the numbers that the encoding's position policy draws, each batch row its own.
inline position_source place(const Encoding& encoding, const position_source& where, std::int64_t batch,
                             std::int64_t tokens, plan& owner, int which) {
    if (!encoding.draw_positions || tokens == 0) return where;
    RW_EXPECTS(where.source != positions::kind::fixed, "'{}' takes indices, not numbers between them",
               encoding.expression);
    const bool plain = where.source == positions::kind::offset && where.first == 0;
    RW_EXPECTS(encoding.drawn_tokens > 0 || plain,
               "'{}' needs its length or the sequence_length of the geometry when positions are given",
               encoding.expression);
    const std::int64_t n = encoding.drawn_tokens > 0 ? encoding.drawn_tokens : tokens;
    ropewalk::detail::check_range(where, batch, tokens, [&](std::int64_t index) {
        RW_EXPECTS(index >= 0 && index < n, "'{}' draws {} positions, index {} is not among them", encoding.expression,
                   n, index);
    });
    std::vector<fixed_position>& placed = owner.own().placed[which];
    placed.resize(static_cast<std::size_t>(batch * tokens));
    std::vector<fixed_position> numbers(static_cast<std::size_t>(n));
    for (std::int64_t row = 0; row < batch; ++row) {
        encoding.draw_positions(static_cast<std::uint64_t>(row), numbers);
        for (std::int64_t token = 0; token < tokens; ++token) {
            const std::int64_t index = index_at(where, row, token);
            placed[static_cast<std::size_t>(row * tokens + token)] = numbers[static_cast<std::size_t>(index)];
        }
    }
    return {positions::kind::fixed, true, 0, placed.data(), tokens, 0, 0};
}

inline position_source read_and_place(const Encoding& encoding, const positions& where, std::int64_t batch,
                                      std::int64_t tokens, plan& owner, int which) {
    return place(encoding, read_positions(where, batch, tokens, owner, which), batch, tokens, owner, which);
}

/// Reads the positions of a plan whose tensors are set and checked by then.
inline auto position_reader(plan& made) {
    return [&made](const Encoding& encoding, const positions& where, int which) {
        return read_and_place(encoding, where, made.work.batch(), made.work.tokens(), made, which);
    };
}

/// Bytes that the call reads.
inline std::int64_t bytes_of(const job& work) {
    return (work.q_in.elements() + work.k_in.elements()) * static_cast<std::int64_t>(size_of(work.any().type));
}

/// Whether the heads of an output are whole lines, elsewhere than those of the input.
inline bool takes_streams(const tensor& in, const tensor& out) {
    if (!in.exists()) return true;
    const auto whole = [&](std::int64_t elements) {
        return elements * static_cast<std::int64_t>(size_of(out.type)) % line_bytes == 0;
    };
    return in.data != out.data && reinterpret_cast<std::uintptr_t>(out.data) % line_bytes == 0 && whole(out.head_dim) &&
           out.head_dim * static_cast<std::int64_t>(size_of(out.type)) <= most_streamed_bytes &&
           whole(out.stride_head) && whole(out.stride_token) && whole(out.stride_batch);
}

/// Chooses the order of the loops, and the kind of the stores, from the size and the strides.
inline void choose_loops(job& work, bool fresh_output = false) {
    const tensor& t = work.any();
    work.size = footprint_of(bytes_of(work));
    work.streaming = work.size == footprint::memory && !fresh_output && takes_streams(work.q_in, work.q_out) &&
                     takes_streams(work.k_in, work.k_out);
    const std::int64_t head = t.stride_head < 0 ? -t.stride_head : t.stride_head;
    const std::int64_t token = t.stride_token < 0 ? -t.stride_token : t.stride_token;
    work.heads_major = t.heads > 1 && t.tokens > 1 && head > token;
    const bool both = work.q_in.exists() && work.k_in.exists() && work.q_in.heads > 0;
    const bool alone = work.q_in.exists() != work.k_in.exists();
    if (work.size == footprint::memory && (both || alone) && !work.heads_major && !work.streaming) {
        const std::int64_t head_bytes = 2 * work.pairs * static_cast<std::int64_t>(size_of(t.type));
        const std::int64_t heads = std::max<std::int64_t>(alternating_bytes / head_bytes, 1);
        work.alternating_heads = both ? std::max<std::int64_t>(heads * work.k_in.heads / work.q_in.heads, 1) : heads;
        work.tile = both ? 1 : 2;
        return;
    }
    // Queries and keys that alternate token by token cost even a plain scale up to 0.4 of its speed out of cache; runs
    // of about 2 MiB cost nothing. What could fit the third cache need not lie there.
    const std::int64_t run = work.size == footprint::memory ? 128 : 64;
    // Rows for a few heads after the others: 512 tokens of 64 pairs, which a second cache holds.
    const std::int64_t tile = work.heads_major ? std::max<std::int64_t>(144 * 1024 / work.row_stride(), 16)
                              : both && work.size != footprint::l2 ? run
                                                                   : 1;
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
    ropewalk::detail::prepare_rotation(work, layout, encoding, where, chosen.direction, chosen.table,
                                       detail::position_reader(made));
    detail::choose_loops(work, chosen.fresh_output);
    return made;
}

/// Checks and prepares the way of cached keys from one encoding and position to another.
inline plan make_rerotation_plan(layout_kind layout, const tensor& k, const tensor& k_out, const Encoding& from,
                                 const positions& from_where, const Encoding& to, const positions& to_where) {
    plan made;
    job& work = made.work;
    work.k_in = k, work.k_out = k_out;
    ropewalk::detail::prepare_rerotation(work, layout, from, from_where, to, to_where, detail::position_reader(made));
    if (work.has_magnitude && !to.has_magnitude()) {
        made.own().unit_magnitude.assign(static_cast<std::size_t>(work.pairs), 0);
        work.turn.magnitude_rates = made.own().unit_magnitude.data();
    }
    detail::choose_loops(work);
    return made;
}

/// Checks and prepares a table of `tokens` rows with `columns` floats each.
inline plan make_table_plan(layout_kind layout, const Encoding& encoding, const positions& where, std::int64_t tokens,
                            std::int64_t columns, std::span<float> cos, std::span<float> sin) {
    ropewalk::detail::check_made(encoding);
    RW_EXPECTS(tokens >= 0, "tokens must not be negative, got {}", tokens);
    RW_EXPECTS(columns == encoding.pairs() || columns == 2 * encoding.pairs(), "a row has {} or {} columns, got {}",
               encoding.pairs(), 2 * encoding.pairs(), columns);
    // One column a pair has the same order in both layouts.
    if (columns != encoding.pairs()) ropewalk::detail::check_layout(encoding, layout);
    RW_EXPECTS(tokens <= std::numeric_limits<std::int64_t>::max() / columns,
               "{} tokens of {} columns are more floats than 64 bits count, got {} and {}", tokens, columns, cos.size(),
               sin.size());
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
    work.turn = ropewalk::detail::steps_of(encoding, where);
    work.turn.where = detail::read_and_place(encoding, where, 1, tokens, made, 0);
    work.table = {cos.data(), sin.data(), element_type::f32, tokens, columns, columns};
    return made;
}

}  // namespace ropewalk::cpu
