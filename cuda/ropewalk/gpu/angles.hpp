// Cosines and sines of one token, for the pairs of one chunk.
#pragma once

#include "ropewalk/core/phase.hpp"
#include "ropewalk/core/sincos.hpp"
#include "ropewalk/gpu/chunks.hpp"
#include "ropewalk/gpu/params.hpp"

namespace ropewalk::gpu {

/// The positions of a token.
struct token_positions {
    token_position target, source;
};

template <class Rates>
RW_HD RW_INLINE token_positions positions_of_token(const ropewalk::rotate_params& params, std::int64_t row,
                                                   std::int64_t token) {
    token_positions positions{.target = params.target.positions.at(row, token), .source = {}};
    if constexpr (Rates::full) {
        if (params.source.steps != nullptr) positions.source = params.source.positions.at(row, token);
    }
    return positions;
}

namespace detail {

/// The phase of a pair, which follows one of `axes` positions.
template <int Capacity>
RW_HD RW_INLINE std::uint64_t phase_of(const steps_by_value<Capacity>& steps, std::int64_t axes,
                                       const token_position& position, std::int64_t pair) {
    const std::uint64_t step = steps.step[pair];
    if (axes == 1) return wrapping_product(position, step);
    const int axis = steps.axis[pair];
    return step * (axis == 0 ? position.whole[0] : axis == 1 ? position.whole[1] : position.whole[2]);
}

/// The upper halves of the phases of a chunk. Almost all calls have one integer per token, which takes a third of the
/// instructions.
template <Layout L, int V, int Capacity>
RW_HD RW_INLINE void upper_phases(const steps_by_value<Capacity>& steps, std::int64_t axes,
                                  const token_position& position, std::int64_t chunk, std::int64_t pairs,
                                  std::uint32_t (&phases)[V]) {
    if (axes == 1 && position.fraction == 0) {
        RW_UNROLL
        for (int i = 0; i < V; ++i)
            phases[i] = upper_phase(position.whole[0], steps.step[chunks<L, V>::pair(chunk, i, pairs)]);
        return;
    }
    RW_UNROLL
    for (int i = 0; i < V; ++i) {
        const std::int64_t pair = chunks<L, V>::pair(chunk, i, pairs);
        phases[i] = static_cast<std::uint32_t>(phase_of(steps, axes, position, pair) >> 32);
    }
}

/// Cosines and sines from a table. The table contains its factor already.
template <Layout L, int V>
RW_HD RW_INLINE cos_sin_values<V> values_from_table(const ropewalk::rotate_params& params, std::int64_t row,
                                                    std::int64_t token, const token_position& position,
                                                    std::int64_t chunk) {
    const cos_sin_table& table = params.table;
    std::int64_t index =
        table.order == cos_sin_table::rows_are::by_token ? token : static_cast<std::int64_t>(position.whole[0]);
    index = index < 0 ? 0 : index < table.rows ? index : table.rows - 1;
    const std::int64_t first = (table.batch == 1 ? 0 : row) * table.stride_batch + index * table.stride_row;
    const bool doubled = table.columns == 2 * params.pairs;
    cos_sin_values<V> result;
    RW_UNROLL
    for (int i = 0; i < V; ++i) {
        const std::int64_t pair = chunks<L, V>::pair(chunk, i, params.pairs);
        const std::int64_t entry = first + (doubled ? L::first(pair, params.pairs) : pair);
        const float sin = ropewalk::detail::table_entry<float>(table.sin, table.type, entry);
        result.cos[i] = ropewalk::detail::table_entry<float>(table.cos, table.type, entry);
        result.sin[i] = params.negate_angle ? -sin : sin;
    }
    return result;
}

/// Cosines and sines from phases.
template <Layout L, int V, class Rates>
RW_HD RW_INLINE cos_sin_values<V> values_from_steps(const ropewalk::rotate_params& params, const Rates& rates,
                                                    token_positions at, std::int64_t chunk, bool is_key) {
    auto& [target, source] = at;
    std::uint32_t phases[V];
    if constexpr (!Rates::full)
        upper_phases<L>(rates.target, params.target.positions.axes, target, chunk, params.pairs, phases);
    cos_sin_values<V> result;
    RW_UNROLL
    for (int i = 0; i < V; ++i) {
        if constexpr (Rates::full) {
            const std::int64_t pair = chunks<L, V>::pair(chunk, i, params.pairs);
            std::uint64_t phase = phase_of(rates.target, params.target.positions.axes, target, pair);
            if (params.source.steps != nullptr)
                phase -= phase_of(rates.source, params.source.positions.axes, source, pair);
            phases[i] = static_cast<std::uint32_t>(phase >> 32);
        }
        const auto value = cos_sin<float>(phases[i], params.negate_angle ? 0x80000000U : 0U);
        result.cos[i] = value.cos, result.sin[i] = value.sin;
    }
    if (params.factor != 1.0F) {
        RW_UNROLL
        for (int i = 0; i < V; ++i) result.cos[i] *= params.factor, result.sin[i] *= params.factor;
    }
    if constexpr (Rates::full) {
        target.whole[0] -= static_cast<std::uint64_t>(params.target.centre);
        source.whole[0] -= static_cast<std::uint64_t>(params.source.centre);
        RW_UNROLL
        for (int i = 0; i < V; ++i) {
            // Encodings without magnitudes have rates of 0, and their magnitude is 1.
            const std::int64_t pair = chunks<L, V>::pair(chunk, i, params.pairs);
            const std::uint64_t bits = wrapping_product(target, rates.magnitude_rates[pair]) -
                                       wrapping_product(source, rates.source_magnitude_rates[pair]);
            const auto upper = static_cast<std::uint32_t>(bits >> 32);
            const float magnitude = exp2_fixed<float>(is_key == params.invert_magnitude ? 0U - upper : upper);
            result.cos[i] *= magnitude, result.sin[i] *= magnitude;
        }
    }
    return result;
}

}  // namespace detail

/// Cosines and sines of the pairs of a chunk, as they multiply a query or a key: factor, direction and magnitude
/// included.
template <Layout L, int V, class Rates>
RW_HD RW_INLINE cos_sin_values<V> values_of_chunk(const ropewalk::rotate_params& params, const Rates& rates,
                                                  std::int64_t row, std::int64_t token,
                                                  const token_positions& positions, std::int64_t chunk, bool is_key) {
    if (params.table.cos != nullptr)  // a validated table has both
        return detail::values_from_table<L, V>(params, row, token, positions.target, chunk);
    return detail::values_from_steps<L, V>(params, rates, positions, chunk, is_key);
}

}  // namespace ropewalk::gpu
