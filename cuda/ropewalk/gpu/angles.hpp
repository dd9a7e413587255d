// Cosines and sines of one token, for the pairs of one chunk.
#pragma once

#include "ropewalk/core/phase.hpp"
#include "ropewalk/core/sincos.hpp"
#include "ropewalk/gpu/chunks.hpp"
#include "ropewalk/gpu/params.hpp"

namespace ropewalk::gpu {

/// The inputs of cosines and sines that all pairs of a token share.
struct token_angles {
    token_position target, source;
    std::int64_t table_row = 0;  ///< replaces the positions where there is a table: the first entry of the row
};

template <class Rates>
RW_HD RW_INLINE token_angles angles_of_token(const ropewalk::rotate_params& params, std::int64_t row,
                                             std::int64_t token) {
    token_angles result;
    if (params.table.exists()) {
        const cos_sin_table& table = params.table;
        std::int64_t index =
            table.order == cos_sin_table::rows_are::by_token ? token : params.target.positions.index(row, token);
        index = index < 0 ? 0 : index < table.rows ? index : table.rows - 1;
        result.table_row = (table.batch == 1 ? 0 : row) * table.stride_batch + index * table.stride_row;
    } else {
        result.target = params.target.positions.at(row, token);
        if constexpr (Rates::full) {
            if (params.source.steps != nullptr) result.source = params.source.positions.at(row, token);
        }
    }
    return result;
}

namespace detail {

/// The phase of one pair, which follows one of `axes` positions. Almost all calls have one integer per token, which
/// takes a third of the instructions. One choice for all pairs would take fewer still, but nvcc 13 then spills for
/// sm_120.
template <int Capacity>
RW_HD RW_INLINE std::uint64_t phase_of(const steps_by_value<Capacity>& steps, std::int64_t axes,
                                       const token_position& position, std::int64_t pair) {
    const std::uint64_t step = steps.step[pair];
    if (axes == 1 && position.fraction == 0) return step * position.whole[0];
    if (axes == 1) return wrapping_product(position, step);
    const int axis = steps.axis[pair];
    return step * (axis == 0 ? position.whole[0] : axis == 1 ? position.whole[1] : position.whole[2]);
}

/// Cosines and sines from a table. The table contains its factor already.
template <Layout L, int V>
RW_HD RW_INLINE cos_sin_values<V> values_from_table(const ropewalk::rotate_params& params, std::int64_t table_row,
                                                    std::int64_t chunk) {
    const cos_sin_table& table = params.table;
    const bool doubled = table.columns == 2 * params.pairs;
    cos_sin_values<V> result;
    RW_UNROLL
    for (int i = 0; i < V; ++i) {
        const std::int64_t pair = chunks<L, V>::pair(chunk, i, params.pairs);
        const std::int64_t entry = table_row + (doubled ? L::first(pair, params.pairs) : pair);
        const float sin = ropewalk::detail::table_entry<float>(table.sin, table.type, entry);
        result.cos[i] = ropewalk::detail::table_entry<float>(table.cos, table.type, entry);
        result.sin[i] = params.negate_angle ? -sin : sin;
    }
    return result;
}

/// Cosines and sines from phases.
template <Layout L, int V, class Rates>
RW_HD RW_INLINE cos_sin_values<V> values_from_steps(const ropewalk::rotate_params& params, const Rates& rates,
                                                    const token_angles& token, std::int64_t chunk, bool is_key) {
    using l = ropewalk::detail::lanes<float>;
    token_position target_distance = token.target, source_distance = token.source;
    target_distance.whole[0] -= static_cast<std::uint64_t>(params.target.centre);
    source_distance.whole[0] -= static_cast<std::uint64_t>(params.source.centre);
    const std::uint32_t negate = params.negate_angle ? 0x80000000U : 0U;
    cos_sin_values<V> result;
    RW_UNROLL
    for (int i = 0; i < V; ++i) {
        const std::int64_t pair = chunks<L, V>::pair(chunk, i, params.pairs);
        std::uint64_t phase = phase_of(rates.target, params.target.positions.axes, token.target, pair);
        if constexpr (Rates::full) {
            if (params.source.steps != nullptr)
                phase -= phase_of(rates.source, params.source.positions.axes, token.source, pair);
        }
        const auto value = cos_sin<float>(static_cast<std::uint32_t>(phase >> 32));
        result.cos[i] = value.cos * params.factor;
        result.sin[i] = l::from_bits(l::to_bits(value.sin) ^ negate) * params.factor;
        if constexpr (Rates::full) {
            // Encodings without magnitudes have rates of 0, and their magnitude is 1.
            const std::uint64_t bits = wrapping_product(target_distance, rates.magnitude_rates[pair]) -
                                       wrapping_product(source_distance, rates.source_magnitude_rates[pair]);
            const auto upper = static_cast<std::uint32_t>(bits >> 32);
            const float magnitude = exp2_fixed<float>(is_key == params.invert_magnitude ? 0U - upper : upper);
            result.cos[i] *= magnitude;
            result.sin[i] *= magnitude;
        }
    }
    return result;
}

}  // namespace detail

/// Cosines and sines of the pairs of a chunk, as they multiply a query or a key: factor, direction and magnitude
/// included.
template <Layout L, int V, class Rates>
RW_HD RW_INLINE cos_sin_values<V> values_of_chunk(const ropewalk::rotate_params& params, const Rates& rates,
                                                  const token_angles& token, std::int64_t chunk, bool is_key) {
    if (params.table.exists()) return detail::values_from_table<L, V>(params, token.table_row, chunk);
    return detail::values_from_steps<L, V>(params, rates, token, chunk, is_key);
}

}  // namespace ropewalk::gpu
