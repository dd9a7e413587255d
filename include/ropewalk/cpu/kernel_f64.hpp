// Kernel of f64: scalar loops for one instruction set, the same in every program.
#pragma once

#include <cmath>

#include "ropewalk/core/layout.hpp"
#include "ropewalk/core/rotation.hpp"
#include "ropewalk/core/sincos.hpp"
#include "ropewalk/cpu/token_heads.hpp"

namespace ropewalk::cpu::detail {
inline namespace RW_ISA {

/// A double in the memory of cos_sin rows, which are allocated as floats.
using row_double [[gnu::may_alias]] = double;

/// Returns cosine and sine of `phase` · 2^-64 turns. Max error 1.3e-16.
///
/// The angle within an eighth of a turn is a sum of two doubles: a rounded angle alone would double the error.
inline cos_sin_pair<double> cos_sin_f64(std::uint64_t phase) {
    const std::uint64_t quarter = (phase + (std::uint64_t{1} << 61)) >> 62;
    const auto eighths = static_cast<std::int64_t>(phase << 2);  // 2^-66 turns
    // The product of the upper 32 bits with the upper 21 bits of 2π is exact.
    constexpr double upper_two_pi = 0x1.921fbp+2, lower_two_pi = 0x1.5110b4611a626p-20;
    const auto upper = static_cast<double>(eighths >> 32) * 0x1p-34;
    const auto lower = static_cast<double>(eighths & 0xffffffff) * 0x1p-66;
    const double exact = upper * upper_two_pi, rest = upper * lower_two_pi + lower * (upper_two_pi + lower_two_pi);
    const double angle = exact + rest, error = rest - (angle - exact);
    const double c = std::cos(angle), s = std::sin(angle);
    const double cosine = c - error * s, sine = s + error * c;
    switch (quarter) {
        case 0:
            return {cosine, sine};
        case 1:
            return {-sine, cosine};
        case 2:
            return {-cosine, -sine};
        default:
            return {sine, -cosine};
    }
}

/// Position times the rate of one pair of [axes, pairs], summed over the axes, modulo 2^64.
inline std::uint64_t product_of_pair(const token_position& position, const std::uint64_t* rates, std::int64_t axes,
                                     std::int64_t pairs, std::int64_t pair) {
    if (rates == nullptr) return 0;
    std::uint64_t sum = wrapping_product(position, rates[pair]);
    for (std::int64_t axis = 1; axis < axes; ++axis) sum += rates[axis * pairs + pair] * position.whole[axis];
    return sum;
}

/// Cosine and sine of one pair from a caller-supplied table.
inline cos_sin_pair<double> cos_sin_from_table(const rotate_params& params, bool interleaved, std::int64_t batch_row,
                                               std::int64_t token, std::int64_t pair) {
    const cos_sin_table& table = params.table;
    const std::int64_t row =
        table.order == cos_sin_table::rows_are::by_token ? token : params.target.positions.index(batch_row, token);
    const std::int64_t column = interleaved && table.columns == 2 * params.pairs ? 2 * pair : pair;
    const std::int64_t entry =
        (table.batch == 1 ? 0 : batch_row) * table.stride_batch + row * table.stride_row + column;
    const auto sine = ropewalk::detail::table_entry<double>(table.sin, table.type, entry);
    return {ropewalk::detail::table_entry<double>(table.cos, table.type, entry), params.negate_angle ? -sine : sine};
}

/// Writes the rows of one token, as make_rows() does, in doubles.
inline void make_rows_f64(const rotate_kernel& kernel, const rotate_params& params, std::int64_t batch_row,
                          std::int64_t token, float* rows, float* /*scratch*/) {
    const std::int64_t stride = padded_row(params.pairs);
    auto* const cos = reinterpret_cast<row_double*>(rows);
    auto* const sin = reinterpret_cast<row_double*>(rows + stride);
    if (params.table.exists()) {
        for (std::int64_t pair = 0; pair < params.pairs; ++pair) {
            const auto value = cos_sin_from_table(params, kernel.interleaved, batch_row, token, pair);
            cos[pair] = value.cos, sin[pair] = value.sin;
        }
        return;
    }
    const rotation_term &to = params.target, &from = params.source;
    token_position target = to.positions.at(batch_row, token), source{};
    if (from.steps != nullptr) source = from.positions.at(batch_row, token);
    const double factor = params.factor_f64, sine_factor = params.negate_angle ? -factor : factor;
    for (std::int64_t pair = 0; pair < params.pairs; ++pair) {
        const auto value = cos_sin_f64(product_of_pair(target, to.steps, to.positions.axes, params.pairs, pair) -
                                       product_of_pair(source, from.steps, from.positions.axes, params.pairs, pair));
        cos[pair] = value.cos * factor, sin[pair] = value.sin * sine_factor;
    }
    if (!params.has_magnitude) return;
    auto* const k_cos = reinterpret_cast<row_double*>(rows + 2 * stride);
    auto* const k_sin = reinterpret_cast<row_double*>(rows + 3 * stride);
    target.whole[0] -= static_cast<std::uint64_t>(to.centre);
    source.whole[0] -= static_cast<std::uint64_t>(from.centre);
    for (std::int64_t pair = 0; pair < params.pairs; ++pair) {
        const std::uint64_t bits = product_of_pair(target, to.magnitude_rates, 1, params.pairs, pair) -
                                   product_of_pair(source, from.magnitude_rates, 1, params.pairs, pair);
        const double exponent = static_cast<double>(static_cast<std::int64_t>(bits)) * 0x1p-56;
        const double k = std::exp2(params.invert_magnitude ? -exponent : exponent);
        k_cos[pair] = cos[pair] * k, k_sin[pair] = sin[pair] * k;
        cos[pair] = cos[pair] / k, sin[pair] = sin[pair] / k;
    }
}

template <class L>
void rotate_heads_f64(std::int64_t pairs, const float* row, const head_span& heads, prefetch_range /*prefetch*/) {
    const auto* const cos = reinterpret_cast<const row_double*>(row);
    const auto* const sin = reinterpret_cast<const row_double*>(row + padded_row(pairs));
    for (std::int64_t head = 0; head < heads.count; ++head) {
        const auto* const in = reinterpret_cast<const double*>(heads.in + head * heads.in_stride);
        auto* const out = reinterpret_cast<double*>(heads.out + head * heads.out_stride);
        for (std::int64_t pair = 0; pair < pairs; ++pair) {
            const std::int64_t first = L::first(pair, pairs), second = L::second(pair, pairs);
            const rotated<double> value = rotate_pair<double>(in[first], in[second], cos[pair], sin[pair]);
            out[first] = value.first, out[second] = value.second;
        }
    }
}

/// Rotates the tokens [begin, end), counted through the batch, one after the other.
inline void run_f64(const rotate_kernel& kernel, const rotate_params& params, std::int64_t begin, std::int64_t end,
                    float* scratch) {
    const auto rotate = [&](const tensor& in, const tensor& out, std::int64_t row, std::int64_t token, float* values) {
        if (!in.exists()) return;
        token_heads heads(in, out, row, token);
        heads.enter_rotary_part(kernel, params, 1);
        kernel.by_heads(params.pairs, values, heads.span, {});
    };
    for (std::int64_t at = begin; at < end; ++at) {
        const std::int64_t row = at / params.tokens(), token = at % params.tokens();
        make_rows_f64(kernel, params, row, token, scratch, nullptr);
        rotate(params.q_in, params.q_out, row, token, scratch);
        rotate(params.k_in, params.k_out, row, token, scratch + key_row(params));
    }
}

template <class L>
void run_layout_f64(const rotate_params& params, std::int64_t begin, std::int64_t end, float* scratch);

/// The kernel of f64 and layout L.
template <class L>
inline constexpr rotate_kernel kernel_of_f64{
    .run = run_layout_f64<L>,
    .by_columns = rotate_heads_f64<L>,
    .by_heads = rotate_heads_f64<L>,
    .make_rows = make_rows_f64,
    .arrange = nullptr,
    .element_bytes = sizeof(double),
    .block_pairs = 1,
    .max_held = 1,
    .interleaved = std::is_same_v<L, interleaved>,
};

template <class L>
void run_layout_f64(const rotate_params& params, std::int64_t begin, std::int64_t end, float* scratch) {
    run_f64(kernel_of_f64<L>, params, begin, end, scratch);
}

}  // namespace RW_ISA
}  // namespace ropewalk::cpu::detail
