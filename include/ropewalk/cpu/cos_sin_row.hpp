// Cosines, sines and magnitudes of one token, in the order of the pairs.
#pragma once

#include "ropewalk/core/layout.hpp"
#include "ropewalk/core/phase.hpp"
#include "ropewalk/core/sincos.hpp"
#include "ropewalk/cpu/params.hpp"
#include "ropewalk/cpu/simd/simd.hpp"

namespace ropewalk::cpu::detail {

/// wrapping_product() of a register of rates.
template <class A>
RW_INLINE quads<A> wrapping_products(const token_position& position, const std::uint64_t* rates) {
    const auto r = quads<A>::load_unaligned(rates);
    quads<A> result = multiply_low<A>(r, quads<A>(position.whole[0]));
    if (position.fraction != 0) {
        const quads<A> fraction(position.fraction);
        result = result + multiply_low<A>(r >> 32, fraction) +
                 (multiply_low<A>(r & quads<A>(std::uint64_t{0xffffffffU}), fraction) >> 32);
    }
    return result;
}

/// Position times rates [axes, pairs], summed over the axes.
struct position_times_rates {
    const token_position& position;
    const std::uint64_t* rates;  ///< null: 0
    std::int64_t axes, pairs;

    template <class A>
    RW_INLINE quads<A> sum(std::int64_t pair) const {
        if (rates == nullptr) return quads<A>(std::uint64_t{0});
        quads<A> value = wrapping_products<A>(position, rates + pair);
        for (std::int64_t axis = 1; axis < axes; ++axis) {
            const auto r = quads<A>::load_unaligned(rates + axis * pairs + pair);
            value = value + multiply_low<A>(r, quads<A>(position.whole[axis]));
        }
        return value;
    }
    RW_INLINE std::uint64_t sum_one(std::int64_t pair) const {
        if (rates == nullptr) return 0;
        std::uint64_t value = wrapping_product(position, rates[pair]);
        for (std::int64_t axis = 1; axis < axes; ++axis) value += rates[axis * pairs + pair] * position.whole[axis];
        return value;
    }
};

/// The upper words of target − source for lane_count<A> pairs.
template <class A>
struct upper_words {
    position_times_rates target, source;

    RW_INLINE typename ropewalk::detail::lanes<floats<A>>::bits at(std::int64_t pair) const {
        return odd_words<A>(difference(pair), difference(pair + lane_count<A> / 2));
    }

private:
    RW_INLINE quads<A> difference(std::int64_t pair) const {
        return target.template sum<A>(pair) - source.template sum<A>(pair);
    }
};

template <>
struct upper_words<scalar_arch> {
    position_times_rates target, source;

    RW_INLINE std::uint32_t at(std::int64_t pair) const {
        return static_cast<std::uint32_t>((target.sum_one(pair) - source.sum_one(pair)) >> 32);
    }
};

/// The common case of upper_words: one integer position and no source.
template <class A>
struct integer_upper_words {
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

/// Cosines and sines of the pairs [begin, end), in whole registers. Plain: without factor and negation.
template <class A, bool Plain, class Phases>
RW_INLINE void fill_registers(const rotate_params& params, const Phases& phases, std::int64_t begin, std::int64_t end,
                              float* cos, float* sin) {
    using R = register_of<A>;
    using F = typename R::type;
    using l = ropewalk::detail::lanes<F>;
    const auto negate = l::broadcast_bits(params.negate_angle ? 0x80000000U : 0U);
    const F factor = l::broadcast(params.factor);
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
RW_INLINE void fill_cos_sin(const rotate_params& params, const token_position& target, const token_position& source,
                            std::int64_t begin, std::int64_t end, float* cos, float* sin) {
    const std::int64_t full = begin + (end - begin) / lane_count<A> * lane_count<A>;
    const std::int64_t axes = params.target.positions.axes;
    if (axes == 1 && target.fraction == 0 && params.source.steps == nullptr) {
        const integer_upper_words<A> phases{target.whole[0], params.target.steps};
        fill_registers<A, Plain>(params, phases, begin, full, cos, sin);
    } else {
        const upper_words<A> phases{{target, params.target.steps, axes, params.pairs},
                                    {source, params.source.steps, params.source.positions.axes, params.pairs}};
        fill_registers<A, Plain>(params, phases, begin, full, cos, sin);
    }
    if constexpr (lane_count<A> > 1) {
        if (full < end) fill_cos_sin<narrower<A>, Plain>(params, target, source, full, end, cos, sin);
    }
}

/// Multiplies the row of the queries by 2^(−x) and writes that of the keys, multiplied by 2^x, or the inverses.
template <class A>
RW_INLINE void apply_magnitude(const rotate_params& params, const token_position& target, const token_position& source,
                               std::int64_t begin, std::int64_t end, float* cos, float* sin, float* k_cos,
                               float* k_sin) {
    using R = register_of<A>;
    using F = typename R::type;
    using l = ropewalk::detail::lanes<F>;
    const upper_words<A> exponents{{target, params.target.magnitude_rates, 1, params.pairs},
                                   {source, params.source.magnitude_rates, 1, params.pairs}};
    const std::int64_t full = begin + (end - begin) / lane_count<A> * lane_count<A>;
    for (std::int64_t pair = begin; pair < full; pair += lane_count<A>) {
        const auto x = exponents.at(pair), opposite = l::broadcast_bits(0U) - x;
        const F q = exp2_fixed<F>(params.invert_magnitude ? x : opposite);
        const F k = exp2_fixed<F>(params.invert_magnitude ? opposite : x);
        const F c = R::load(cos + pair), s = R::load(sin + pair);
        R::store(k_cos + pair, c * k);
        R::store(k_sin + pair, s * k);
        R::store(cos + pair, c * q);
        R::store(sin + pair, s * q);
    }
    if constexpr (lane_count<A> > 1) {
        if (full < end) apply_magnitude<narrower<A>>(params, target, source, full, end, cos, sin, k_cos, k_sin);
    }
}

/// Replaces a NaN by one whose lower half is zero, as the rounding to bf16 expects.
RW_INLINE float canonical(float value) { return value == value ? value : __builtin_nanf(""); }

/// Cosines and sines from a caller-supplied table, which holds any factor already.
template <class L>
RW_INLINE void fill_from_table(const rotate_params& params, std::int64_t batch_row, std::int64_t token, float* cos,
                               float* sin) {
    const cos_sin_table& table = params.table;
    const std::int64_t table_row =
        table.order == cos_sin_table::rows_are::by_token ? token : params.target.positions.index(batch_row, token);
    const std::int64_t start = (table.batch == 1 ? 0 : batch_row) * table.stride_batch + table_row * table.stride_row;
    const bool doubled = table.columns == 2 * params.pairs;
    for (std::int64_t pair = 0; pair < params.pairs; ++pair) {
        const std::int64_t column = start + (doubled ? L::first(pair, params.pairs) : pair);
        float c = 0, s = 0;
        if (table.type == element_type::bf16) {
            c = static_cast<float>(static_cast<const bf16*>(table.cos)[column]);
            s = static_cast<float>(static_cast<const bf16*>(table.sin)[column]);
        } else {
            c = static_cast<const float*>(table.cos)[column];
            s = static_cast<const float*>(table.sin)[column];
        }
        cos[pair] = canonical(c);
        sin[pair] = canonical(params.negate_angle ? -s : s);
    }
}

}  // namespace ropewalk::cpu::detail
