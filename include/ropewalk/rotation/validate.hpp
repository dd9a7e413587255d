// Every check of the arguments of a call, on the CPU or on a GPU. Kernels check nothing.
#pragma once

#include <cmath>
#include <limits>
#include <string_view>

#include "ropewalk/core/error.hpp"
#include "ropewalk/core/overlap.hpp"
#include "ropewalk/encoding.hpp"
#include "ropewalk/rotation/params.hpp"

namespace ropewalk::detail {

/// "q [batch 1, tokens 4, heads 2, head_dim 128], strides [.., .., .., 1]"
inline std::string shape_of(std::string_view name, const tensor& t) {
    return format("{} [batch {}, tokens {}, heads {}, head_dim {}] of strides [{}, {}, {}, {}]", name, t.batch,
                  t.tokens, t.heads, t.head_dim, t.stride_batch, t.stride_token, t.stride_head, t.stride_element);
}

/// Bytes of this many elements, of queries and of keys, can be counted in 64 bits.
inline constexpr std::int64_t most_elements = std::int64_t{1} << 60;

inline void check_tensor(std::string_view name, const tensor& t, std::int64_t head_dim) {
    RW_EXPECTS(t.batch >= 0 && t.tokens >= 0 && t.heads >= 0, "{}: no extent may be negative", shape_of(name, t));
    RW_EXPECTS(t.elements() <= most_elements, "{}: 2^60 elements are the most of one tensor", shape_of(name, t));
    RW_EXPECTS(t.exists() || t.elements() == 0, "{} has {} elements but no memory", shape_of(name, t), t.elements());
    RW_EXPECTS(t.head_dim == head_dim, "{}: the encoding is for head_dim {}", shape_of(name, t), head_dim);
    RW_EXPECTS(t.stride_element == 1 || t.elements() == 0,
               "{}: the elements of a head must be contiguous (last stride 1)", shape_of(name, t));
    RW_EXPECTS((reinterpret_cast<std::uintptr_t>(t.data) & (size_of(t.type) - 1)) == 0,
               "{}: address {} is not aligned to the {} bytes of {}", shape_of(name, t), t.data, size_of(t.type),
               to_string(t.type));
}

inline bool same_place(const tensor& a, const tensor& b) {
    return a.data == b.data && (a.batch <= 1 || a.stride_batch == b.stride_batch) &&
           (a.tokens <= 1 || a.stride_token == b.stride_token) && (a.heads <= 1 || a.stride_head == b.stride_head);
}

/// What a kernel may write: every element of it once.
inline void check_written(std::string_view name, const tensor& t) {
    if (t.elements() == 0) return;
    const char* const folded = overlapping_axis(t);
    RW_EXPECTS(folded == nullptr, "{}: its elements share memory along the {} axis, so it cannot be written",
               shape_of(name, t), folded == nullptr ? "" : folded);
}

inline void check_output(std::string_view name, const tensor& in, const tensor& out) {
    if (!in.exists() && !out.exists()) return;
    RW_EXPECTS(in.type == out.type, "{} is {} but its output is {}", name, to_string(in.type), to_string(out.type));
    RW_EXPECTS(in.batch == out.batch && in.tokens == out.tokens && in.heads == out.heads && in.head_dim == out.head_dim,
               "{} and its output must have one shape, got {} and {}", name, shape_of("input", in),
               shape_of("output", out));
    check_written(name, out);
    RW_EXPECTS(same_place(in, out) || !may_overlap(in, out),
               "{} and its output overlap without being the same: {} at {}, {} at {}", name, shape_of("input", in),
               in.data, shape_of("output", out), out.data);
}

inline void check_tensors(const call& work, std::int64_t head_dim) {
    const auto given = [](const tensor& t) { return t.exists() || t.elements() != 0; };
    const auto check = [&](std::string_view name, std::string_view output, const tensor& in, const tensor& out) {
        if (given(in)) check_tensor(name, in, head_dim);
        if (out == in) return check_written(name, out);
        if (given(out)) check_tensor(output, out, head_dim);
        check_output(name, in, out);
    };
    check("q", "q's output", work.q_in, work.q_out);
    check("k", "k's output", work.k_in, work.k_out);
    if (!work.q_in.exists() || !work.k_in.exists()) return;

    const tensor &q = work.q_in, &k = work.k_in;
    RW_EXPECTS(q.type == k.type, "q is {} but k is {}", to_string(q.type), to_string(k.type));
    RW_EXPECTS(q.batch == k.batch && q.tokens == k.tokens, "q and k must have the same batch and tokens, got {} and {}",
               shape_of("q", q), shape_of("k", k));
    RW_EXPECTS(q.heads == k.heads || (k.heads > 0 && q.heads % k.heads == 0),
               "the heads of q must be a multiple of those of k, got {} and {}", q.heads, k.heads);
    RW_EXPECTS(!may_overlap(work.q_out, work.k_out), "q and k overlap: {} at {}, {} at {}", shape_of("q", work.q_out),
               work.q_out.data, shape_of("k", work.k_out), work.k_out.data);
    // In place, what has been said of the outputs holds of the inputs.
    if (same_place(q, work.q_out) && same_place(k, work.k_out)) return;
    RW_EXPECTS(!may_overlap(work.q_out, k), "the output of q overlaps k: {}", shape_of("k", k));
    RW_EXPECTS(!may_overlap(q, work.k_out), "the output of k overlaps q: {}", shape_of("q", q));
}

/// Calls check(index) for the smallest and the largest index of the call, where the host can tell.
template <class Check>
void check_range(const position_source& where, std::int64_t rows, std::int64_t tokens, const Check& check) {
    if (tokens == 0 || rows == 0) return;
    if (where.source == positions::kind::offset) {
        check(where.first);
        check(where.first + tokens - 1);
        return;
    }
    if (!where.readable) return;
    std::int64_t smallest = std::numeric_limits<std::int64_t>::max(),
                 largest = std::numeric_limits<std::int64_t>::min();
    const std::int64_t distinct = where.stride_row == 0 ? 1 : rows;
    for (std::int64_t row = 0; row < distinct; ++row) {
        for (std::int64_t token = 0; token < tokens; ++token) {
            const std::int64_t index = index_at(where, row, token);
            smallest = index < smallest ? index : smallest;
            largest = index > largest ? index : largest;
        }
    }
    check(smallest);
    check(largest);
}

/// xPos: the factor of every position must fit into the element type.
inline void check_reach(const Encoding& encoding, const position_source& where, std::int64_t rows, std::int64_t tokens,
                        element_type type) {
    if (!encoding.has_magnitude()) return;
    const std::int64_t reach = encoding.reach(type);
    check_range(where, rows, tokens, [&](std::int64_t position) {
        RW_EXPECTS(position <= encoding.centre + reach && position >= encoding.centre - reach,
                   "'{}' cannot hold position {} in {}: the largest distance from its centre {} is {}",
                   encoding.expression, position, to_string(type), encoding.centre, reach);
    });
}

/// The position that a kernel reads for one token, in tokens.
inline double position_of(const position_source& where, std::int64_t row, std::int64_t token) {
    return static_cast<double>(index_at(where, row, token)) +
           static_cast<double>(fraction_at(where, row, token)) * 0x1p-32;
}

/// The decay of pair j, in doubles: 2^-56 bits a token.
inline double magnitude_rate_of(const Encoding& encoding, std::size_t pair) {
    return encoding.has_magnitude() ? static_cast<double>(encoding.magnitude_rates[pair]) : 0;
}

/// rerotate: from one position to another the magnitude may change by more than either of them has, and by no more
/// than a float holds. Positions in memory that the host cannot read are taken on trust.
inline void check_shift(const call& work, const Encoding& from, const Encoding& to) {
    const position_source &now = work.turn.where, &before = work.unturn.where;
    if (!now.known() || !before.known()) return;
    constexpr double most = 126 * 0x1p56;
    double steepest = 0, differ = 0;  // of either encoding, and between the two
    for (std::size_t pair = 0; pair < static_cast<std::size_t>(work.pairs); ++pair) {
        const double was = magnitude_rate_of(from, pair), is = magnitude_rate_of(to, pair);
        steepest = std::fmax(steepest, std::fmax(was, is));
        differ = std::fmax(differ, std::fabs(is - was));
    }
    // Between two offsets the change is linear in the token, so that what fits at both ends fits between.
    const bool linear = now.source == positions::kind::offset && before.source == positions::kind::offset;
    const std::int64_t tokens = work.tokens(), count = linear ? tokens : work.batch() * tokens;
    const std::int64_t pace = linear && tokens > 1 ? tokens - 1 : 1;
    for (std::int64_t at = 0; at < count; at += pace) {
        const std::int64_t row = at / tokens, token = at % tokens;
        const double was = position_of(before, row, token) - static_cast<double>(from.centre);
        const double is = position_of(now, row, token) - static_cast<double>(to.centre);
        // is · d_to − was · d_from = (is − was) · d_to + was · (d_to − d_from), which seldom comes near the limit.
        if (std::fabs(is - was) * steepest + std::fabs(was) * differ <= most) continue;
        for (std::size_t pair = 0; pair < static_cast<std::size_t>(work.pairs); ++pair) {
            const double bits = is * magnitude_rate_of(to, pair) - was * magnitude_rate_of(from, pair);
            RW_EXPECTS(std::fabs(bits) <= most,
                       "from '{}' at position {} to '{}' at {} the magnitude of pair {} changes by 2^{}, beyond 2^126",
                       from.expression, was + static_cast<double>(from.centre), to.expression,
                       is + static_cast<double>(to.centre), pair, bits * 0x1p-56);
        }
    }
}

/// Rows or batches of a table that would overlap are a wrong stride, but one of 0 says that all of them are the same.
inline void check_table_strides(const cos_sin_table& table) {
    const auto check = [&table](const char* name, std::int64_t count, std::int64_t stride) {
        if (count <= 1) return;
        RW_EXPECTS(stride != cos_sin_table::not_given, "the table of {} rows, {} columns and {} batches lacks its {}",
                   table.rows, table.columns, table.batch, name);
        RW_EXPECTS(stride == 0 || stride >= table.columns || stride <= -table.columns,
                   "the table has rows of {} columns, but its {} is {}", table.columns, name, stride);
    };
    check("stride_row", table.rows, table.stride_row);
    check("stride_batch", table.batch, table.stride_batch);
}

inline void check_table(const cos_sin_table& table, const call& work) {
    RW_EXPECTS(table.cos != nullptr && table.sin != nullptr, "the table lacks its {}", table.cos ? "sines" : "cosines");
    RW_EXPECTS(table.type != element_type::f16, "the table must be f32 or bf16, got {}", to_string(table.type));
    const std::size_t size = size_of(table.type);
    RW_EXPECTS(reinterpret_cast<std::uintptr_t>(table.cos) % size == 0 &&
                   reinterpret_cast<std::uintptr_t>(table.sin) % size == 0,
               "the table at {} and {} is not aligned to the {} bytes of {}", table.cos, table.sin, size,
               to_string(table.type));
    RW_EXPECTS(table.columns == work.pairs || table.columns == 2 * work.pairs,
               "the table must have {} or {} columns, got {}", work.pairs, 2 * work.pairs, table.columns);
    RW_EXPECTS(!work.has_magnitude, "a table holds no xpos magnitudes: rotate without it");
    if (table.order == cos_sin_table::rows_are::by_token) {
        RW_EXPECTS(table.rows >= work.tokens(), "the table has {} rows for {} tokens", table.rows, work.tokens());
        RW_EXPECTS(table.batch == 1 || table.batch == work.batch(), "the table has {} batches for {}", table.batch,
                   work.batch());
        return check_table_strides(table);
    }
    RW_EXPECTS(work.turn.axes == 1, "a table by index takes one position a token, got {}", work.turn.axes);
    RW_EXPECTS(table.batch == 1, "a table by index has one batch, got {}", table.batch);
    check_table_strides(table);
    RW_EXPECTS(work.turn.where.source != positions::kind::fixed, "a table has no rows between positions");
    check_range(work.turn.where, work.batch(), work.tokens(), [&](std::int64_t index) {
        RW_EXPECTS(index >= 0 && index < table.rows, "position {} lies outside the table of {} rows", index,
                   table.rows);
    });
}

}  // namespace ropewalk::detail
