// Conversion of the caller's arguments to validated parameters.
#pragma once

#include "ropewalk/rotation/validate.hpp"

namespace ropewalk {

/// The memory that holds explicit positions.
enum class memory_space : std::uint8_t { host, device };

namespace detail {

inline namespace RW_ISA {

/// Checks the starts of the sequences of a ragged batch.
inline void check_sequence_starts(const position_reader& reader, std::int64_t tokens) {
    RW_EXPECTS(reader.count >= 1 && reader.sequence_start(0) == 0, "cu_seqlens must begin with 0, got {}",
               reader.count < 1 ? "nothing" : std::to_string(reader.sequence_start(0)));
    for (std::int64_t i = 1; i < reader.count; ++i) {
        const std::int64_t previous = reader.sequence_start(i - 1), start = reader.sequence_start(i);
        RW_EXPECTS(start >= previous, "cu_seqlens must ascend, got {} after {} at entry {}", start, previous, i);
    }
    const std::int64_t end = reader.sequence_start(reader.count - 1);
    RW_EXPECTS(end == tokens, "cu_seqlens ends with {} but there are {} tokens", end, tokens);
}

/// Checks the offsets of sequences and adds them to the reader of their positions, which knows the starts of ragged
/// sequences.
inline void add_offsets(position_reader& reader, const positions& given, std::int64_t batch, std::int64_t tokens,
                        memory_space space) {
    const sequence_integers& offsets = given.offsets;
    const bool ragged = given.ragged();
    const std::int64_t sequences = ragged ? reader.count - 1 : batch;
    RW_EXPECTS(offsets.count == 1 || offsets.count == sequences, "{} offsets are given for {} {}", offsets.count,
               sequences, ragged ? "sequences of cu_seqlens" : "batch rows");
    RW_EXPECTS(given.first == 0, "offsets per sequence exclude a common offset, got {}", given.first);
    const std::size_t size = offsets.wide ? 8 : 4;
    RW_EXPECTS(offsets.data != nullptr || offsets.count == 0, "the offsets of {} sequences are a null pointer",
               sequences);
    RW_EXPECTS(reinterpret_cast<std::uintptr_t>(offsets.data) % size == 0,
               "the offsets at {} are not aligned to the {} bytes of one", offsets.data, size);
    reader.offsets = offsets.data, reader.wide_offsets = offsets.wide;
    reader.stride_offsets = offsets.count == 1 ? 0 : 1;
    if (space == memory_space::device) return;
    for (std::int64_t i = 0; i < sequences; ++i) {
        const std::int64_t length = ragged ? reader.sequence_start(i + 1) - reader.sequence_start(i) : tokens;
        RW_EXPECTS(reader.offset_of(i) <= std::numeric_limits<std::int64_t>::max() - length,
                   "offset {} and {} tokens of sequence {} overflow 64-bit positions", reader.offset_of(i), length, i);
    }
}

/// Checks the number of positions per token against the encoding.
inline void check_axes(const Encoding& encoding, const positions& given) {
    constexpr auto several = static_cast<std::int64_t>(position_axes);
    RW_EXPECTS(given.axes == 1 || given.axes == several, "positions has {} axes, expected 1 or {}", given.axes,
               several);
    RW_EXPECTS(given.axes == 1 || encoding.has_axes(), "'{}' takes one position per token, got {}", encoding.expression,
               given.axes);
    RW_EXPECTS(given.axes == 1 || given.source == positions::kind::ids32 || given.source == positions::kind::ids64,
               "several positions per token must be ids");
}

}  // namespace RW_ISA
}  // namespace detail

inline namespace RW_ISA {

/// Checks the positions of [batch, tokens] and returns their reader. Values in device memory are not read.
inline position_reader read_positions(const positions& given, std::int64_t batch, std::int64_t tokens,
                                      memory_space space) {
    using kind = positions::kind;
    position_reader reader{.kind = given.source, .host_readable = space == memory_space::host, .first = given.first};
    RW_EXPECTS(!given.offsets.exists() || given.ragged() || given.source == kind::row_offsets,
               "offsets per sequence need batch rows or cu_seqlens, not a shift, one offset or explicit positions");
    if (given.source == kind::shift) {
        reader.host_readable = true;  // it has no memory to read
        return reader;
    }
    const bool ragged = given.ragged();
    if (given.source == kind::row_offsets) {
        detail::add_offsets(reader, given, batch, tokens, space);
        return reader;
    }
    if (given.source == kind::offset || ragged) {
        RW_EXPECTS(!ragged || batch == 1, "cu_seqlens needs packed tokens [tokens, heads, head_dim], got a batch of {}",
                   batch);
        RW_EXPECTS(given.first <= std::numeric_limits<std::int64_t>::max() - tokens,
                   "offset {} and {} tokens overflow 64-bit positions", given.first, tokens);
        if (!ragged) return reader;
    }
    if (space == memory_space::device) {
        RW_EXPECTS(given.data != nullptr || tokens == 0, "the positions of {} tokens are a null pointer", tokens);
    }
    const bool narrow = given.source == kind::ids32 || given.source == kind::cu_seqlens32;
    const std::size_t size = narrow ? 4 : 8;
    RW_EXPECTS(reinterpret_cast<std::uintptr_t>(given.data) % size == 0,
               "the positions at {} are not aligned to the {} bytes of one", given.data, size);
    reader.data = given.data;
    if (ragged) {
        reader.count = given.count;
        if (space == memory_space::host) {
            detail::check_sequence_starts(reader, tokens);
        } else {
            RW_EXPECTS(given.count >= (tokens == 0 ? 1 : 2), "cu_seqlens has {} entries for {} tokens", given.count,
                       tokens);
        }
        if (given.offsets.exists()) detail::add_offsets(reader, given, batch, tokens, space);
        return reader;
    }
    RW_EXPECTS(given.count >= tokens, "positions has {} entries for {} tokens", given.count, tokens);
    RW_EXPECTS(given.rows == 1 || given.rows == batch, "positions has {} rows for a batch of {}", given.rows, batch);
    // Extra ids at the end of a row are ignored, but one row as long as the whole batch is almost certainly a batch.
    RW_EXPECTS(
        given.rows != 1 || given.count == tokens || tokens == 0 || given.count % tokens != 0 ||
            given.count / tokens != batch,
        "positions has one row of {} entries for a batch of {} with {} tokens each; pass ids(values, {}) for one row "
        "per sequence",
        given.count, batch, tokens, batch);
    reader.stride_row = given.rows == 1 ? 0 : given.stride_row;
    reader.axes = given.axes;
    reader.stride_axis = given.axes == 1 ? 0 : given.stride_axis;
    const bool reachable = detail::reach_of(tokens, {{given.rows, reader.stride_row},
                                                     {given.axes, reader.stride_axis}}) <= detail::max_reach;
    RW_EXPECTS(reachable || tokens == 0,
               "positions with strides {} of rows and {} of axes reach farther than 2^56 entries", reader.stride_row,
               reader.stride_axis);
    return reader;
}

/// read_positions() for an encoding, whose positions per token must fit.
inline position_reader read_positions(const Encoding& encoding, const positions& given, std::int64_t batch,
                                      std::int64_t tokens, memory_space space) {
    detail::check_axes(encoding, given);
    RW_EXPECTS(
        given.source != positions::kind::shift || !encoding.draw_positions,
        "'{}' draws positions at random, so no distance is the same for every token: shift by an encoding without "
        "them",
        encoding.expression);
    return read_positions(given, batch, tokens, space);
}

/// The term of one encoding at the positions of a reader.
inline rotation_term make_term(const Encoding& encoding, const position_reader& reader) {
    return {.steps = reader.axes == 1 ? encoding.steps.data() : encoding.axis_steps.data(),
            .magnitude_rates = encoding.has_magnitude() ? encoding.magnitude_rates.data() : nullptr,
            .centre = detail::centre_of(encoding, reader),
            .positions = reader};
}

/// Completes parameters that hold the tensors of arguments, which passed check_args(), at the positions of `target`
/// and, in a re-rotation, of `source`. Throws where magnitudes leave the range of the element type, or where the table
/// does not fit. A result by value would cost a call on the CPU 30 ns.
inline void set_params(rotate_params& params, const rotate_args& args, const position_reader& target,
                       const position_reader& source) {
    const Encoding& encoding = *args.target;
    params.rotary_offset = encoding.geometry.rotary_offset;
    params.pairs = encoding.pairs();
    params.table = args.table;
    const std::int64_t batch = params.batch(), tokens = params.tokens();
    const element_type type = params.any().type;

    params.target = make_term(encoding, target);
    detail::check_reach(encoding, target, batch, tokens, type);
    params.has_magnitude = encoding.has_magnitude();
    double factor = detail::factor_of(encoding, target);
    if (args.source != nullptr) {
        params.source = make_term(*args.source, source);
        detail::check_reach(*args.source, source, batch, tokens, type);
        params.has_magnitude = params.has_magnitude || args.source->has_magnitude();
        factor /= detail::factor_of(*args.source, source);
        RW_EXPECTS(detail::fits_float(factor),
                   "from '{}' to '{}' the attention factor changes by {}, which a float does not hold",
                   args.source->expression, encoding.expression, factor);
        if (params.has_magnitude) detail::check_magnitude_change(params, *args.source, encoding, factor);
    }
    const bool undoes = args.direction == direction::inverse || args.direction == direction::inverse_adjoint;
    params.negate_angle = args.direction == direction::inverse || args.direction == direction::adjoint;
    params.invert_magnitude = undoes;
    params.factor_f64 = undoes ? 1 / factor : factor;
    params.factor = static_cast<float>(params.factor_f64);
    if (params.table.exists()) detail::check_table(params);
}

/// The parameters of arguments that passed check_args(): see set_params().
inline rotate_params make_params(const rotate_args& args, const position_reader& target,
                                 const position_reader& source = {}) {
    rotate_params params{.q_in = args.q_in, .k_in = args.k_in, .q_out = args.q_out, .k_out = args.k_out};
    set_params(params, args, target, source);
    return params;
}

}  // namespace RW_ISA
}  // namespace ropewalk
