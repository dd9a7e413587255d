// Cosines and sines of one token, for the pairs of one slot.
#pragma once

#include "ropewalk/core/phase.hpp"
#include "ropewalk/core/sincos.hpp"
#include "ropewalk/gpu/job.hpp"
#include "ropewalk/gpu/slots.hpp"

namespace ropewalk::gpu {

namespace detail {

/// The phase of one pair, each of whose axes follows one position.
template <int Capacity>
RW_HD RW_INLINE std::uint64_t phase_of(const steps_by_value<Capacity>& steps, const term_source& term,
                                       const token_position& at, std::int64_t pair) {
    const std::uint64_t step = steps.step[pair];
    if (term.positions.axes == 1) return wrapping_product(at, step);
    const int axis = steps.axis[pair];
    return step * (axis == 0 ? at.whole[0] : axis == 1 ? at.whole[1] : at.whole[2]);
}

/// One number of a table of either type.
RW_HD RW_INLINE float table_value(const void* values, element_type type, std::int64_t at) {
    return type == element_type::bf16 ? static_cast<float>(static_cast<const bf16*>(values)[at])
                                      : static_cast<const float*>(values)[at];
}

/// The first number of a token's row of a table.
RW_HD RW_INLINE std::int64_t table_row(const turn_source& source, std::int64_t row, std::int64_t token) {
    const cos_sin_table& table = source.table;
    std::int64_t line =
        table.order == cos_sin_table::rows_are::by_token ? token : source.target.positions.index(row, token);
    line = line < 0 ? 0 : line < table.rows ? line : table.rows - 1;
    return (table.batch == 1 ? 0 : row) * table.stride_batch + line * table.stride_row;
}

/// Cosines and sines from a table, which already hold whatever factor its maker chose.
template <Layout L, int V>
RW_HD RW_INLINE turns<V> turns_from_table(const turn_source& source, std::int64_t start, std::int64_t slot) {
    const cos_sin_table& table = source.table;
    const bool doubled = table.columns == 2 * source.pairs;
    turns<V> result;
    RW_UNROLL
    for (int i = 0; i < V; ++i) {
        const std::int64_t pair = slots<L, V>::pair(slot, i, source.pairs);
        const std::int64_t at = start + (doubled ? L::first(pair, source.pairs) : pair);
        const float sin = table_value(table.sin, table.type, at);
        result.cos[i] = table_value(table.cos, table.type, at);
        result.sin[i] = source.negate_angle ? -sin : sin;
    }
    return result;
}

/// The positions of one token in the encoding that it gets and in that which it leaves.
struct token_positions {
    token_position target, source;
};

template <class Rates>
RW_HD RW_INLINE token_positions positions_of(const turn_source& source, std::int64_t row, std::int64_t token) {
    token_positions result;
    result.target = source.target.positions.at(row, token);
    if constexpr (Rates::full) {
        if (source.has_source) result.source = source.source.positions.at(row, token);
    }
    return result;
}

/// Cosines and sines from phases.
template <Layout L, int V, class Rates>
RW_HD RW_INLINE turns<V> turns_from_steps(const turn_source& source, const Rates& rates, const token_positions& token,
                                          std::int64_t slot, bool is_key) {
    using l = ropewalk::detail::lanes<float>;
    token_position distance = token.target, left = token.source;
    distance.whole[0] -= static_cast<std::uint64_t>(source.target.centre);
    left.whole[0] -= static_cast<std::uint64_t>(source.source.centre);
    const std::uint32_t negate = source.negate_angle ? 0x80000000U : 0U;
    turns<V> result;
    RW_UNROLL
    for (int i = 0; i < V; ++i) {
        const std::int64_t pair = slots<L, V>::pair(slot, i, source.pairs);
        std::uint64_t phase = phase_of(rates.target, source.target, token.target, pair);
        if constexpr (Rates::full) {
            if (source.has_source) phase -= phase_of(rates.source, source.source, token.source, pair);
        }
        const auto value = cos_sin<float>(static_cast<std::uint32_t>(phase >> 32));
        result.cos[i] = value.cos * source.factor;
        result.sin[i] = l::from_bits(l::to_bits(value.sin) ^ negate) * source.factor;
        if constexpr (Rates::full) {
            // Where nothing decays the rates are 0 and the magnitude is 1.
            const std::uint64_t bits = wrapping_product(distance, rates.magnitude_rates[pair]) -
                                       wrapping_product(left, rates.source_magnitude_rates[pair]);
            const auto upper = static_cast<std::uint32_t>(bits >> 32);
            const float magnitude = exp2_fixed<float>(is_key == source.invert_magnitude ? 0U - upper : upper);
            result.cos[i] *= magnitude;
            result.sin[i] *= magnitude;
        }
    }
    return result;
}

}  // namespace detail

/// Cosines and sines of the pairs of a slot, as they multiply a query or a key: the factor, the direction and the
/// magnitude are in them.
template <Layout L, int V, class Rates>
RW_HD RW_INLINE turns<V> turns_at(const turn_source& source, const Rates& rates, std::int64_t row, std::int64_t token,
                                  std::int64_t slot, bool is_key) {
    if (source.table.exists())
        return detail::turns_from_table<L, V>(source, detail::table_row(source, row, token), slot);
    return detail::turns_from_steps<L, V>(source, rates, detail::positions_of<Rates>(source, row, token), slot, is_key);
}

/// What all pairs of a token share, where a thread has several slots: found, and compiled, once.
struct token_turn {
    detail::token_positions positions;  ///< or, where there is a table,
    std::int64_t table_row = 0;
};

template <class Rates>
RW_HD RW_INLINE token_turn turn_of(const turn_source& source, std::int64_t row, std::int64_t token) {
    token_turn result;
    if (source.table.exists()) {
        result.table_row = detail::table_row(source, row, token);
    } else {
        result.positions = detail::positions_of<Rates>(source, row, token);
    }
    return result;
}

/// The same as above for a token whose turn is known.
template <Layout L, int V, class Rates>
RW_HD RW_INLINE turns<V> turns_at(const turn_source& source, const Rates& rates, const token_turn& token,
                                  std::int64_t slot, bool is_key) {
    if (source.table.exists()) return detail::turns_from_table<L, V>(source, token.table_row, slot);
    return detail::turns_from_steps<L, V>(source, rates, token.positions, slot, is_key);
}

}  // namespace ropewalk::gpu
