// Cosines, sines and magnitudes of one token, in the order of the pairs.
#pragma once

#include "ropewalk/core/phase.hpp"
#include "ropewalk/core/sincos.hpp"
#include "ropewalk/cpu/job.hpp"
#include "ropewalk/cpu/simd.hpp"

namespace ropewalk::cpu::detail {

/// The positions of one token: the first alone counts unless its encoding has several axes.
struct token_position {
    split_position axis[position_axes];
};

RW_INLINE token_position position_at(const turn_term& term, std::int64_t row, std::int64_t token) {
    token_position at{};
    at.axis[0] = {static_cast<std::uint64_t>(index_at(term.where, row, token)), fraction_at(term.where, row, token)};
    for (std::int64_t a = 1; a < term.axes; ++a) {
        at.axis[a] = {static_cast<std::uint64_t>(index_at(on_axis(term.where, a), row, token)), 0};
    }
    return at;
}

/// wrapping_product() of a register of rates.
template <class A>
RW_INLINE quads<A> product(const split_position& position, const std::uint64_t* rate) {
    const auto r = quads<A>::load_unaligned(rate);
    quads<A> result = multiply_low<A>(r, quads<A>(position.whole));
    if (position.fraction != 0) {
        const quads<A> fraction(position.fraction);
        result = result + multiply_low<A>(r >> 32, fraction) +
                 (multiply_low<A>(r & quads<A>(std::uint64_t{0xffffffffU}), fraction) >> 32);
    }
    return result;
}

/// Positions times rates [axes, pairs], summed over the axes.
struct rated_position {
    const token_position& at;
    const std::uint64_t* rate;  ///< null: nothing
    std::int64_t axes, pairs;

    template <class A>
    RW_INLINE quads<A> sum(std::int64_t pair) const {
        quads<A> value = product<A>(at.axis[0], rate + pair);
        for (std::int64_t a = 1; a < axes; ++a) value = value + product<A>(at.axis[a], rate + a * pairs + pair);
        return value;
    }
    RW_INLINE std::uint64_t sum_one(std::int64_t pair) const {
        std::uint64_t value = wrapping_product(at.axis[0], rate[pair]);
        for (std::int64_t a = 1; a < axes; ++a) value += wrapping_product(at.axis[a], rate[a * pairs + pair]);
        return value;
    }
};

/// The upper words of turn − unturn for lane_count<A> pairs.
template <class A>
struct upper_words {
    rated_position turn, unturn;

    RW_INLINE typename ropewalk::detail::lanes<floats<A>>::bits at(std::int64_t pair) const {
        return odd_words<A>(half(pair), half(pair + lane_count<A> / 2));
    }

private:
    RW_INLINE quads<A> half(std::int64_t pair) const {
        quads<A> value = turn.template sum<A>(pair);
        if (unturn.rate != nullptr) value = value - unturn.template sum<A>(pair);
        return value;
    }
};

template <>
struct upper_words<scalar_arch> {
    rated_position turn, unturn;

    RW_INLINE std::uint32_t at(std::int64_t pair) const {
        std::uint64_t value = turn.sum_one(pair);
        if (unturn.rate != nullptr) value -= unturn.sum_one(pair);
        return static_cast<std::uint32_t>(value >> 32);
    }
};

/// The same for one whole position from no other, as nearly always.
template <class A>
struct whole_upper_words {
    std::uint64_t position;
    const std::uint64_t* steps;

    RW_INLINE auto at(std::int64_t pair) const {
        if constexpr (std::is_same_v<A, scalar_arch>) {
            return static_cast<std::uint32_t>((steps[pair] * position) >> 32);
        } else {
            return upper_products<A>(steps + pair, position);
        }
    }
};

/// A register of floats, or one float for scalar_arch.
template <class A>
struct register_of {
    using type = floats<A>;
    static RW_INLINE type load(const float* source) { return type::load_unaligned(source); }
    static RW_INLINE void store(float* target, const type& value) { value.store_unaligned(target); }
};
template <>
struct register_of<scalar_arch> {
    using type = float;
    static RW_INLINE type load(const float* source) { return *source; }
    static RW_INLINE void store(float* target, type value) { *target = value; }
};

/// Cosines and sines of the pairs [begin, end), whole registers; as they are where Plain, else times the factor, the
/// angle perhaps negated.
template <class A, bool Plain, class Phases>
RW_INLINE void fill_registers(const job& work, const Phases& phases, std::int64_t begin, std::int64_t end, float* cos,
                              float* sin) {
    using R = register_of<A>;
    using F = typename R::type;
    using l = ropewalk::detail::lanes<F>;
    const auto negate = l::broadcast_bits(work.negate_angle ? 0x80000000U : 0U);
    const F factor = l::broadcast(work.factor);
    for (std::int64_t pair = begin; pair < end; pair += lane_count<A>) {
        auto value = cos_sin<F>(phases.at(pair));
        if constexpr (!Plain) {
            value.cos = value.cos * factor;
            value.sin = l::from_bits(l::to_bits(value.sin) ^ negate) * factor;
        }
        R::store(cos + pair, value.cos);
        R::store(sin + pair, value.sin);
    }
}

/// fill_registers() for any number of pairs.
template <class A, bool Plain>
RW_INLINE void fill_angles(const job& work, const token_position& turn, const token_position& unturn,
                           std::int64_t begin, std::int64_t end, float* cos, float* sin) {
    const std::int64_t full = begin + (end - begin) / lane_count<A> * lane_count<A>;
    if (work.turn.axes == 1 && turn.axis[0].fraction == 0 && work.unturn.steps == nullptr) {
        const whole_upper_words<A> phases{turn.axis[0].whole, work.turn.steps};
        fill_registers<A, Plain>(work, phases, begin, full, cos, sin);
    } else {
        const upper_words<A> phases{{turn, work.turn.steps, work.turn.axes, work.pairs},
                                    {unturn, work.unturn.steps, work.unturn.axes, work.pairs}};
        fill_registers<A, Plain>(work, phases, begin, full, cos, sin);
    }
    if constexpr (lane_count<A> > 1) {
        if (full < end) fill_angles<narrower<A>, Plain>(work, turn, unturn, full, end, cos, sin);
    }
}

/// Multiplies the rows of the queries by 2^(−x) and makes those of the keys with 2^x, or the other way round.
template <class A>
RW_INLINE void fill_magnitudes(const job& work, const token_position& turn, const token_position& unturn,
                               std::int64_t begin, std::int64_t end, float* cos, float* sin, float* k_cos,
                               float* k_sin) {
    using R = register_of<A>;
    using F = typename R::type;
    using l = ropewalk::detail::lanes<F>;
    const upper_words<A> exponents{{turn, work.turn.magnitude_rates, 1, work.pairs},
                                   {unturn, work.unturn.magnitude_rates, 1, work.pairs}};
    const std::int64_t full = begin + (end - begin) / lane_count<A> * lane_count<A>;
    for (std::int64_t pair = begin; pair < full; pair += lane_count<A>) {
        const auto x = exponents.at(pair), opposite = l::broadcast_bits(0U) - x;
        const F q = exp2_fixed<F>(work.invert_magnitude ? x : opposite),
                k = exp2_fixed<F>(work.invert_magnitude ? opposite : x);
        const F c = R::load(cos + pair), s = R::load(sin + pair);
        R::store(k_cos + pair, c * k);
        R::store(k_sin + pair, s * k);
        R::store(cos + pair, c * q);
        R::store(sin + pair, s * q);
    }
    if constexpr (lane_count<A> > 1) {
        if (full < end) fill_magnitudes<narrower<A>>(work, turn, unturn, full, end, cos, sin, k_cos, k_sin);
    }
}

/// A NaN with a zero lower half, as the rounding to bf16 expects; any other value as it is.
RW_INLINE float canonical(float value) { return value == value ? value : __builtin_nanf(""); }

/// Cosines and sines from a table, which already hold whatever factor its maker chose.
template <class L>
RW_INLINE void fill_from_table(const job& work, std::int64_t row, std::int64_t token, float* cos, float* sin) {
    const cos_sin_table& table = work.table;
    const std::int64_t line =
        table.order == cos_sin_table::rows_are::by_token ? token : index_at(work.turn.where, row, token);
    const std::int64_t start = (table.batch == 1 ? 0 : row) * table.stride_batch + line * table.stride_row;
    const bool doubled = table.columns == 2 * work.pairs;
    for (std::int64_t pair = 0; pair < work.pairs; ++pair) {
        const std::int64_t at = start + (doubled ? L::first(pair, work.pairs) : pair);
        float c = 0, s = 0;
        if (table.type == element_type::bf16) {
            c = static_cast<float>(static_cast<const bf16*>(table.cos)[at]);
            s = static_cast<float>(static_cast<const bf16*>(table.sin)[at]);
        } else {
            c = static_cast<const float*>(table.cos)[at];
            s = static_cast<const float*>(table.sin)[at];
        }
        cos[pair] = canonical(c);
        sin[pair] = canonical(work.negate_angle ? -s : s);
    }
}

}  // namespace ropewalk::cpu::detail
