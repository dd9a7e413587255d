// Plan of a rotation on the CPU: from the caller's arguments to the parameters of a kernel.
#pragma once

#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "ropewalk/cpu/choose_loop.hpp"
#include "ropewalk/cpu/machine_profile.hpp"
#include "ropewalk/cpu/options.hpp"
#include "ropewalk/rotation/make_params.hpp"

namespace ropewalk::cpu {

/// Parameters of a kernel, and the drawn positions that they point to.
struct rotate_plan {
    rotate_params params;
    std::vector<fixed_position> target_positions, source_positions;  ///< of policies that draw positions
};

namespace detail {

inline namespace RW_ISA {

/// The positions of [batch, tokens] as a kernel reads them. Where the encoding draws its positions, they are looked up
/// by index, one draw per batch row, and stored in `drawn`.
inline position_reader resolve_positions(const Encoding& encoding, const positions& given, std::int64_t batch,
                                         std::int64_t tokens, std::vector<fixed_position>& drawn) {
    const position_reader reader = read_positions(encoding, given, batch, tokens, memory_space::host);
    if (!encoding.draw_positions || tokens == 0) return reader;
    RW_EXPECTS(reader.kind != positions::kind::fixed, "'{}' takes indices, not fractional positions",
               encoding.expression);
    const bool from_start = reader.kind == positions::kind::offset && reader.first == 0;
    RW_EXPECTS(encoding.drawn_tokens > 0 || from_start,
               "'{}' needs its length or the sequence_length of the geometry when positions are given",
               encoding.expression);
    const std::int64_t n = encoding.drawn_tokens > 0 ? encoding.drawn_tokens : tokens;
    ropewalk::detail::check_range(reader, batch, tokens, [&](std::int64_t index) {
        RW_EXPECTS(index >= 0 && index < n, "'{}' draws {} positions, index {} is not among them", encoding.expression,
                   n, index);
    });
    drawn.resize(static_cast<std::size_t>(batch * tokens));
    std::vector<fixed_position> row_positions(static_cast<std::size_t>(n));
    for (std::int64_t row = 0; row < batch; ++row) {
        encoding.draw_positions(static_cast<std::uint64_t>(row), row_positions);
        for (std::int64_t token = 0; token < tokens; ++token)
            drawn[static_cast<std::size_t>(row * tokens + token)] =
                row_positions[static_cast<std::size_t>(reader.index(row, token))];
    }
    return {.kind = positions::kind::fixed, .data = drawn.data(), .stride_row = tokens};
}

}  // namespace RW_ISA
}  // namespace detail

inline namespace RW_ISA {

/// The tuning profile of a call.
inline const tuning_profile& tuning_of(const options& options) {
    return options.tuning != nullptr ? *options.tuning : machine_profile();
}

/// Validates the arguments and chooses the loops. Encodings, positions and table must outlive the plan. Throws
/// ropewalk::error where shapes, strides, positions, table or layout do not fit.
inline rotate_plan make_plan(const rotate_args& args, bool fresh_output = false,
                             const tuning_profile& tuning = machine_profile()) {
    const bool short_strides = ropewalk::detail::check_args(args);
    const std::int64_t batch = args.any().batch, tokens = args.any().tokens;
    rotate_plan plan{.params = {{.q_in = args.q_in, .k_in = args.k_in, .q_out = args.q_out, .k_out = args.k_out}, {}},
                     .target_positions = {},
                     .source_positions = {}};
    if (!short_strides) ropewalk::detail::drop_unused_strides(plan.params);
    const bool empty = args.q_in.elements() == 0 && args.k_in.elements() == 0;
    const auto resolve = [&](const Encoding& encoding, const positions& given, std::vector<fixed_position>& drawn) {
        if (empty) return read_positions(encoding, given, batch, tokens, memory_space::host);
        return detail::resolve_positions(encoding, given, batch, tokens, drawn);
    };
    const position_reader target = resolve(*args.target, args.target_positions, plan.target_positions);
    position_reader source;
    if (args.source != nullptr) source = resolve(*args.source, args.source_positions, plan.source_positions);
    // Heads of no elements leave no work, and the product of the other extents may overflow.
    if (empty) plan.params.q_in.tokens = plan.params.k_in.tokens = 0;
    set_params(plan.params, args, target, source);
    if (empty) plan.params.q_in.batch = plan.params.k_in.batch = 0;  // prepared rotations visit every batch row
    plan.params.loop = choose_loop(plan.params, tuning, fresh_output);
    return plan;
}

/// The plan of a rotation. Tensors whose data is null are absent.
inline rotate_plan make_plan(layout_kind layout, const tensor& q, const tensor& k, const tensor& q_out,
                             const tensor& k_out, const Encoding& encoding, const positions& positions,
                             const options& options) {
    return make_plan(rotation_args(layout, q, k, q_out, k_out, encoding, positions, options.direction, options.table),
                     options.fresh_output, tuning_of(options));
}

/// The plan of a re-rotation of cached keys from one encoding and its positions to another.
inline rotate_plan make_rerotation_plan(layout_kind layout, const tensor& k, const tensor& k_out,
                                        const Encoding& source, const positions& source_positions,
                                        const Encoding& target, const positions& target_positions) {
    return make_plan(rerotation_args(layout, k, k_out, source, source_positions, target, target_positions));
}

/// The plan of a table of `tokens` rows with `columns` floats each.
inline rotate_plan make_table_plan(layout_kind layout, const Encoding& encoding, const positions& positions,
                                   std::int64_t tokens, std::int64_t columns, std::span<float> cos,
                                   std::span<float> sin) {
    // One column per pair has the same order in both layouts.
    const bool any_layout = columns == encoding.pairs();
    ropewalk::detail::check_encoding(encoding, any_layout ? encoding.geometry.layout.value_or(layout) : layout);
    RW_EXPECTS(tokens >= 0, "tokens must not be negative, got {}", tokens);
    RW_EXPECTS(any_layout || columns == 2 * encoding.pairs(), "a row has {} or {} columns, got {}", encoding.pairs(),
               2 * encoding.pairs(), columns);
    RW_EXPECTS(tokens <= std::numeric_limits<std::int64_t>::max() / columns,
               "{} tokens of {} columns are more floats than 64 bits count, got {} and {}", tokens, columns, cos.size(),
               sin.size());
    const auto floats = static_cast<std::size_t>(tokens * columns);
    RW_EXPECTS(cos.size() >= floats && sin.size() >= floats, "{} tokens of {} columns need {} floats, got {} and {}",
               tokens, columns, floats, cos.size(), sin.size());
    RW_EXPECTS(floats == 0 || cos.data() + floats <= sin.data() || sin.data() + floats <= cos.data(),
               "cos at {} and sin at {} overlap", cos.data(), sin.data());
    rotate_plan plan;
    rotate_params& params = plan.params;
    params.loop.bytes_per_thread = machine_profile().bytes_per_thread;
    // execute() counts the tokens of q; the kernel writes to the table.
    params.q_in = {.data = tokens == 0 ? nullptr : cos.data(), .tokens = tokens, .heads = 1, .head_dim = columns};
    params.pairs = encoding.pairs();
    params.target =
        make_term(encoding, detail::resolve_positions(encoding, positions, 1, tokens, plan.target_positions));
    params.table = {.cos = cos.data(),
                    .sin = sin.data(),
                    .type = element_type::f32,
                    .rows = tokens,
                    .columns = columns,
                    .stride_row = columns};
    return plan;
}

}  // namespace RW_ISA
}  // namespace ropewalk::cpu
