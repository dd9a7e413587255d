// Validation of the arguments of a rotation. Kernels check nothing.
#pragma once

#include <cmath>
#include <limits>
#include <string_view>

#include "ropewalk/core/error.hpp"
#include "ropewalk/core/overlap.hpp"
#include "ropewalk/rotation/args.hpp"
#include "ropewalk/rotation/params.hpp"

namespace ropewalk::detail {
inline namespace RW_ISA {

/// "q [batch 1, tokens 4, heads 2, head_dim 128] of strides [.., .., .., 1]"
inline std::string shape_of(std::string_view name, const tensor& t) {
    return detail::format("{} [batch {}, tokens {}, heads {}, head_dim {}] of strides [{}, {}, {}, {}]", name, t.batch,
                          t.tokens, t.heads, t.head_dim, t.stride_batch, t.stride_token, t.stride_head,
                          t.stride_element);
}

/// Limit of the elements of one tensor, which may repeat them by a stride of 0.
inline constexpr std::int64_t max_elements = std::int64_t{1} << 60;

inline void check_tensor(std::string_view name, const tensor& t, std::int64_t head_dim) {
    RW_EXPECTS(t.batch >= 0 && t.tokens >= 0 && t.heads >= 0, "{}: no extent may be negative", shape_of(name, t));
    RW_EXPECTS(t.elements() <= max_elements, "{}: a tensor may have at most 2^60 elements", shape_of(name, t));
    RW_EXPECTS(t.exists() || t.elements() == 0, "{} has {} elements but no memory", shape_of(name, t), t.elements());
    RW_EXPECTS(t.head_dim == head_dim, "{}: the encoding is for head_dim {}", shape_of(name, t), head_dim);
    RW_EXPECTS(t.stride_element == 1 || t.elements() == 0,
               "{}: the elements of a head must be contiguous (last stride 1)", shape_of(name, t));
    RW_EXPECTS((reinterpret_cast<std::uintptr_t>(t.data) & (size_of(t.type) - 1)) == 0,
               "{}: address {} is not aligned to the {} bytes of {}", shape_of(name, t), t.data, size_of(t.type),
               to_string(t.type));
    if (t.elements() == 0) return;
    RW_EXPECTS(t.reach() <= max_reach, "{}: its strides reach farther than 2^56 elements", shape_of(name, t));
    const byte_range bytes = range_of(t);
    const auto start = reinterpret_cast<std::uintptr_t>(t.data);
    RW_EXPECTS(bytes.begin <= start && start < bytes.end, "{}: its strides leave the address space from address {} on",
               shape_of(name, t), t.data);
}

/// Sets the strides of axes that have at most one entry to 0. Callers may give them any number, and kernels convert
/// strides to bytes.
inline void drop_unused_strides(tensor& t) {
    const bool empty = t.elements() == 0;
    if (empty || t.batch == 1) t.stride_batch = 0;
    if (empty || t.tokens == 1) t.stride_token = 0;
    if (empty || t.heads == 1) t.stride_head = 0;
}
[[gnu::cold]] inline void drop_unused_strides(rotate_params& params) {
    for (tensor* const t : {&params.q_in, &params.k_in, &params.q_out, &params.k_out}) drop_unused_strides(*t);
}

/// Returns whether a and b are the same elements in the same order.
inline bool in_place(const tensor& a, const tensor& b) {
    return a.data == b.data && (a.batch <= 1 || a.stride_batch == b.stride_batch) &&
           (a.tokens <= 1 || a.stride_token == b.stride_token) && (a.heads <= 1 || a.stride_head == b.stride_head);
}

/// Checks that a kernel writes every element once.
inline void check_written(std::string_view name, const tensor& t) {
    if (t.elements() == 0) return;
    const char* const axis = overlapping_axis(t);
    RW_EXPECTS(axis == nullptr, "{}: its elements share memory along the {} axis, so it cannot be written",
               shape_of(name, t), axis == nullptr ? "" : axis);
}

inline void check_output(std::string_view name, const tensor& in, const tensor& out) {
    if (!in.exists() && !out.exists()) return;
    RW_EXPECTS(in.type == out.type, "{} is {} but its output is {}", name, to_string(in.type), to_string(out.type));
    RW_EXPECTS(in.batch == out.batch && in.tokens == out.tokens && in.heads == out.heads && in.head_dim == out.head_dim,
               "{} and its output must have one shape, got {} and {}", name, shape_of("input", in),
               shape_of("output", out));
    check_written(name, out);
    RW_EXPECTS(in_place(in, out) || !may_overlap(in, out),
               "{} and its output overlap without being the same: {} at {}, {} at {}", name, shape_of("input", in),
               in.data, shape_of("output", out), out.data);
}

/// The bytes of a tensor with nested strides and extents that cannot overflow, the common case. Empty where only
/// check_tensors() can tell whether it is valid.
inline byte_range obvious_range(const tensor& t, std::int64_t head_dim) {
    constexpr int extent_bits = 15, stride_bits = 40;
    const bool small = ((t.batch | t.tokens | t.heads) >> extent_bits) == 0 &&
                       ((t.stride_batch | t.stride_token | t.stride_head) >> stride_bits) == 0;
    if (!small || t.head_dim != head_dim || t.stride_element != 1) return {};
    std::int64_t span = head_dim, end = head_dim;
    bool nested = true;
    const auto enter = [&](std::int64_t extent, std::int64_t stride) {
        if (extent == 1) return;
        nested = nested && stride >= span;
        span = extent * stride;
        end += (extent - 1) * stride;
    };
    enter(t.heads, t.stride_head);
    enter(t.tokens, t.stride_token);
    enter(t.batch, t.stride_batch);
    const auto begin = reinterpret_cast<std::uintptr_t>(t.data), size = static_cast<std::uintptr_t>(size_of(t.type));
    const bool filled = t.batch != 0 && t.tokens != 0 && t.heads != 0 && t.exists();
    if (!nested || !filled || (begin & (size - 1)) != 0) return {};
    return {begin, begin + static_cast<std::uintptr_t>(end) * size};
}

/// The bytes of a tensor and of its output.
struct obvious_ranges {
    byte_range in, out;
    bool absent, valid;

    obvious_ranges(const tensor& t, const tensor& output, std::int64_t head_dim)
        : in(obvious_range(t, head_dim)), absent(t == tensor{} && output == t), valid(in.begin != in.end) {
        const bool in_place = output.data == t.data;
        out = in_place ? in : obvious_range(output, head_dim);
        valid = valid && (in_place ? output == t
                                   : output.type == t.type && output.batch == t.batch && output.tokens == t.tokens &&
                                         output.heads == t.heads && out.begin != out.end && !out.overlaps(in));
    }
};

/// Returns whether queries and keys pass check_tensors(), by a few comparisons. False where only check_tensors() can
/// tell.
inline bool obviously_valid(const rotate_args& args, std::int64_t head_dim) {
    const tensor &q = args.q_in, &k = args.k_in;
    if (head_dim >> 15 != 0) return false;
    const obvious_ranges q_bytes(q, args.q_out, head_dim), k_bytes(k, args.k_out, head_dim);
    if (q_bytes.absent || k_bytes.absent) return q_bytes.valid || k_bytes.valid;
    return q_bytes.valid && k_bytes.valid && q.type == k.type && q.batch == k.batch && q.tokens == k.tokens &&
           static_cast<std::uint32_t>(q.heads) % static_cast<std::uint32_t>(k.heads) == 0 &&
           !q_bytes.out.overlaps(k_bytes.out) && !q_bytes.out.overlaps(k_bytes.in) && !k_bytes.out.overlaps(q_bytes.in);
}

/// Checks queries and keys against the encoding, against each other and against their outputs.
inline void check_all_tensors(const rotate_args& args, std::int64_t head_dim) {
    const auto given = [](const tensor& t) { return t.exists() || t.elements() != 0; };
    const auto check = [&](std::string_view name, std::string_view output, const tensor& in, const tensor& out) {
        if (given(in)) check_tensor(name, in, head_dim);
        if (out == in) return check_written(name, out);
        if (given(out)) check_tensor(output, out, head_dim);
        check_output(name, in, out);
    };
    check("q", "q's output", args.q_in, args.q_out);
    check("k", "k's output", args.k_in, args.k_out);
    if (!args.q_in.exists() || !args.k_in.exists()) return;

    const tensor &q = args.q_in, &k = args.k_in;
    RW_EXPECTS(q.type == k.type, "q is {} but k is {}", to_string(q.type), to_string(k.type));
    RW_EXPECTS(q.batch == k.batch && q.tokens == k.tokens, "q and k must have the same batch and tokens, got {} and {}",
               shape_of("q", q), shape_of("k", k));
    RW_EXPECTS(q.heads == k.heads || (k.heads > 0 && q.heads % k.heads == 0),
               "the heads of q must be a multiple of those of k, got {} and {}", q.heads, k.heads);
    RW_EXPECTS(!may_overlap(args.q_out, args.k_out), "q and k overlap: {} at {}, {} at {}", shape_of("q", args.q_out),
               args.q_out.data, shape_of("k", args.k_out), args.k_out.data);
    // In place, the inputs are the outputs, which were compared above.
    if (in_place(q, args.q_out) && in_place(k, args.k_out)) return;
    RW_EXPECTS(!may_overlap(args.q_out, k), "the output of q overlaps k: {}", shape_of("k", k));
    RW_EXPECTS(!may_overlap(q, args.k_out), "the output of k overlaps q: {}", shape_of("q", q));
}

/// The same, quickly where a few comparisons can tell. Returns true if no stride is longer than 2^40.
inline bool check_tensors(const rotate_args& args, std::int64_t head_dim) {
    if (obviously_valid(args, head_dim)) return true;
    check_all_tensors(args, head_dim);
    return false;
}

/// Rejects encodings not created by make_encoding().
inline void check_encoding(const Encoding& encoding, layout_kind layout) {
    RW_EXPECTS(encoding.pairs() > 0 && encoding.pairs() == encoding.geometry.pairs(),
               "the encoding has steps for {} pairs, its geometry {}: it was not made by make_encoding()",
               encoding.pairs(), encoding.geometry.pairs());
    const auto named = encoding.geometry.layout;
    RW_EXPECTS(!named || *named == layout, "the encoding is for the layout {}, the call for {}",
               to_string(named.value_or(layout)), to_string(layout));
}

/// Checks encodings, layout and tensors: all but the positions, the table and the magnitudes. Returns true if no stride
/// is longer than 2^40; if not, drop_unused_strides() is due.
inline bool check_args(const rotate_args& args) {
    const Encoding& target = *args.target;
    if (args.source != nullptr) check_encoding(*args.source, args.layout);
    check_encoding(target, args.layout);
    if (args.source != nullptr) {
        const Geometry &from = args.source->geometry, &to = target.geometry;
        RW_EXPECTS(from.head_dim == to.head_dim && args.source->pairs() == target.pairs() &&
                       from.rotary_offset == to.rotary_offset,
                   "both encodings must rotate the same elements, got {} and {} of head_dim {} and {} at {} and {}",
                   from.width(), to.width(), from.head_dim, to.head_dim, from.rotary_offset, to.rotary_offset);
    }
    return check_tensors(args, target.geometry.head_dim);
}

/// Calls check(index) for the smallest and the largest index, where the host knows the values.
template <class Check>
void check_range(const position_reader& reader, std::int64_t rows, std::int64_t tokens, const Check& check) {
    if (tokens == 0 || rows == 0) return;
    if (reader.kind == positions::kind::shift) return check(reader.first);
    if (reader.kind == positions::kind::offset) {
        check(reader.first);
        check(reader.first + tokens - 1);
        return;
    }
    if (!reader.host_readable) return;
    std::int64_t smallest = std::numeric_limits<std::int64_t>::max(),
                 largest = std::numeric_limits<std::int64_t>::min();
    const std::int64_t distinct = reader.stride_row == 0 ? 1 : rows;
    for (std::int64_t row = 0; row < distinct; ++row) {
        for (std::int64_t token = 0; token < tokens; ++token) {
            const std::int64_t index = reader.index(row, token);
            smallest = index < smallest ? index : smallest;
            largest = index > largest ? index : largest;
        }
    }
    check(smallest);
    check(largest);
}

/// The position whose magnitude is 1. A shift is a distance, whose magnitude does not depend on the centre.
inline std::int64_t centre_of(const Encoding& encoding, const position_reader& reader) {
    return reader.kind == positions::kind::shift ? 0 : encoding.centre;
}

/// The factor on cosines and sines. A shift moves tokens that have it already.
inline double factor_of(const Encoding& encoding, const position_reader& reader) {
    return reader.kind == positions::kind::shift ? 1 : encoding.attention_factor;
}

/// Checks that the element type holds the xPos scale of every position.
inline void check_reach(const Encoding& encoding, const position_reader& reader, std::int64_t rows, std::int64_t tokens,
                        element_type type) {
    if (!encoding.has_magnitude()) return;
    const std::int64_t reach = encoding.reach(type), centre = centre_of(encoding, reader);
    check_range(reader, rows, tokens, [&](std::int64_t position) {
        RW_EXPECTS(position <= centre + reach && position >= centre - reach,
                   "'{}' cannot hold {} {} in {}: the largest distance from its centre {} is {}", encoding.expression,
                   reader.kind == positions::kind::shift ? "a shift by" : "position", position, to_string(type), centre,
                   reach);
    });
}

/// The position of one token, in tokens.
inline double position_of(const position_reader& reader, std::int64_t row, std::int64_t token) {
    return static_cast<double>(reader.index(row, token)) +
           static_cast<double>(reader.at(row, token).fraction) * 0x1p-32;
}

/// The magnitude rate of pair j, in 2^-56 bits per token.
inline double magnitude_rate_of(const Encoding& encoding, std::size_t pair) {
    return encoding.has_magnitude() ? static_cast<double>(encoding.magnitude_rates[pair]) : 0;
}

/// Checks that a float holds the change of every magnitude of a re-rotation, times the change of the attention factor.
/// Positions that the host cannot read are not checked.
[[gnu::cold]] inline void check_magnitude_change(const rotate_params& params, const Encoding& source,
                                                 const Encoding& target, double factor) {
    const position_reader &before = params.source.positions, &after = params.target.positions;
    if (!before.known() || !after.known() || params.any().elements() == 0) return;
    const double limit_bits = 126 - std::fabs(std::log2(factor)), limit = limit_bits * 0x1p56;
    double steepest = 0, difference = 0;  // of either encoding, and between the two
    for (std::size_t pair = 0; pair < static_cast<std::size_t>(params.pairs); ++pair) {
        const double from = magnitude_rate_of(source, pair), to = magnitude_rate_of(target, pair);
        steepest = std::fmax(steepest, std::fmax(from, to));
        difference = std::fmax(difference, std::fabs(to - from));
    }
    // Between two offsets the change is linear in the token: what fits at both ends fits in between.
    const bool linear = after.kind == positions::kind::offset && before.kind == positions::kind::offset;
    const std::int64_t tokens = params.tokens(), count = linear ? tokens : params.batch() * tokens;
    const std::int64_t increment = linear && tokens > 1 ? tokens - 1 : 1;
    for (std::int64_t i = 0; i < count; i += increment) {
        const std::int64_t row = i / tokens, token = i % tokens;
        const double from = position_of(before, row, token) - static_cast<double>(params.source.centre);
        const double to = position_of(after, row, token) - static_cast<double>(params.target.centre);
        // to · rate_to − from · rate_from = (to − from) · rate_to + from · (rate_to − rate_from): a cheap upper bound.
        if (std::fabs(to - from) * steepest + std::fabs(from) * difference <= limit) continue;
        for (std::size_t pair = 0; pair < static_cast<std::size_t>(params.pairs); ++pair) {
            const double bits = to * magnitude_rate_of(target, pair) - from * magnitude_rate_of(source, pair);
            RW_EXPECTS(std::fabs(bits) <= limit,
                       "from '{}' at position {} to '{}' at {} the magnitude of pair {} changes by 2^{}, beyond 2^{}",
                       source.expression, from + static_cast<double>(params.source.centre), target.expression,
                       to + static_cast<double>(params.target.centre), pair, bits * 0x1p-56, limit_bits);
        }
    }
}

/// Checks that the rows and batches of a table do not overlap. A stride of 0 repeats one row or batch.
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
    const bool reachable =
        reach_of(table.columns, {{table.rows, table.stride_row}, {table.batch, table.stride_batch}}) <= max_reach;
    RW_EXPECTS(reachable,
               "the table of {} rows of stride {} and {} batches of stride {} reaches farther than 2^56 elements",
               table.rows, table.stride_row, table.batch, table.stride_batch);
}

inline void check_table(const rotate_params& params) {
    const cos_sin_table& table = params.table;
    RW_EXPECTS(table.cos != nullptr && table.sin != nullptr, "the table lacks its {}", table.cos ? "sines" : "cosines");
    const element_type type = params.any().type;
    RW_EXPECTS(table.type != element_type::f64 || type == element_type::f64,
               "a table of f64 needs tensors of f64, got {}: convert the table to f32", to_string(type));
    const std::size_t size = size_of(table.type);
    RW_EXPECTS(reinterpret_cast<std::uintptr_t>(table.cos) % size == 0 &&
                   reinterpret_cast<std::uintptr_t>(table.sin) % size == 0,
               "the table at {} and {} is not aligned to the {} bytes of {}", table.cos, table.sin, size,
               to_string(table.type));
    RW_EXPECTS(table.columns == params.pairs || table.columns == 2 * params.pairs,
               "the table must have {} or {} columns, got {}", params.pairs, 2 * params.pairs, table.columns);
    RW_EXPECTS(!params.has_magnitude, "a table holds no xpos magnitudes: rotate without it");
    RW_EXPECTS(table.rows >= 0, "the table must not have a negative number of rows, got {}", table.rows);
    const std::int64_t batch = params.batch(), tokens = params.tokens();
    if (table.order == cos_sin_table::rows_are::by_token) {
        RW_EXPECTS(table.rows >= tokens, "the table has {} rows for {} tokens", table.rows, tokens);
        RW_EXPECTS(table.batch == 1 || table.batch == batch, "the table has {} batches for {}", table.batch, batch);
        return check_table_strides(table);
    }
    const position_reader& reader = params.target.positions;
    RW_EXPECTS(reader.axes == 1, "a table by index needs one position per token, got {}", reader.axes);
    RW_EXPECTS(table.batch == 1, "a table by index has one batch, got {}", table.batch);
    check_table_strides(table);
    RW_EXPECTS(reader.kind != positions::kind::fixed, "a table has no rows for fractional positions");
    check_range(reader, batch, tokens, [&](std::int64_t index) {
        RW_EXPECTS(index >= 0 && index < table.rows, "position {} lies outside the table of {} rows", index,
                   table.rows);
    });
}

}  // namespace RW_ISA
}  // namespace ropewalk::detail
