// Cosines, sines and magnitudes of one token, in the order of the pairs.
#pragma once

#include <cstring>

#include "ropewalk/core/layout.hpp"
#include "ropewalk/core/phase.hpp"
#include "ropewalk/core/sincos.hpp"
#include "ropewalk/cpu/params.hpp"
#include "ropewalk/cpu/simd/load_store.hpp"

namespace ropewalk::cpu::detail {

/// wrapping_product() of a register of rates.
template <class A>
RW_INLINE quads<A> wrapping_products(const token_position& position, const std::uint64_t* rates) {
    const auto r = quads<A>::load_unaligned(rates);
    quads<A> result = multiply_low<A>(r, quads<A>(position.whole[0]));
    if (position.fraction != 0) {
        const quads<A> fraction(std::uint64_t{position.fraction});
        result = result + multiply_low<A>(r >> 32, fraction) +
                 (multiply_low<A>(r & quads<A>(std::uint64_t{0xffffffffU}), fraction) >> 32);
    }
    return result;
}

/// Position times rates [axes, stride], summed over the axes.
struct position_times_rates {
    const token_position& position;
    const std::uint64_t* rates;  ///< null: 0
    std::int64_t axes, stride;

    template <class A>
    RW_INLINE quads<A> sum(std::int64_t pair) const {
        if (rates == nullptr) return quads<A>(std::uint64_t{0});
        quads<A> value = wrapping_products<A>(position, rates + pair);
        for (std::int64_t axis = 1; axis < axes; ++axis) {
            const auto r = quads<A>::load_unaligned(rates + axis * stride + pair);
            value = value + multiply_low<A>(r, quads<A>(position.whole[axis]));
        }
        return value;
    }
};

/// target − source of one register of pairs, the upper words.
template <class A>
RW_INLINE words<A> upper_difference(const position_times_rates& target, const position_times_rates& source,
                                    std::int64_t pair) {
    const std::int64_t next = pair + lane_count<A> / 2;
    return odd_words<A>(target.template sum<A>(pair) - source.template sum<A>(pair),
                        target.template sum<A>(next) - source.template sum<A>(next));
}

/// The rates of the last pairs of a row, which fill no register, followed by zeros.
template <class A>
class last_rates {
public:
    last_rates(const position_times_rates& all, std::int64_t begin, std::int64_t count)
        : all_{all.position, all.rates == nullptr ? nullptr : values_, all.axes, lane_count<A>} {
        for (std::int64_t axis = 0; all.rates != nullptr && axis < all.axes; ++axis)
            for (std::int64_t i = 0; i < count; ++i)
                values_[axis * lane_count<A> + i] = all.rates[axis * all.stride + begin + i];
    }
    last_rates(const last_rates&) = delete;
    last_rates& operator=(const last_rates&) = delete;
    operator const position_times_rates&() const { return all_; }  // NOLINT(google-explicit-constructor)

private:
    std::uint64_t values_[position_axes * static_cast<std::size_t>(lane_count<A>)] = {};
    position_times_rates all_;
};

/// Cosines and sines of `count` pairs, in whole registers, at the phases phases(pair). Plain: without factor and
/// negation.
template <class A, bool Plain, class Phases>
RW_INLINE void fill_registers(const rotate_params& params, std::int64_t count, float* cos, float* sin,
                              const Phases& phases) {
    using F = floats<A>;
    const auto negate = words<A>(params.negate_angle ? 0x80000000U : 0U);
    const F factor(params.factor);
    for (std::int64_t pair = 0; pair < count; pair += lane_count<A>) {
        auto value = ropewalk::cos_sin<F>(phases(pair));
        if constexpr (!Plain) {
            value.cos = value.cos * factor;
            value.sin = as<float>(words<A>(as<std::uint32_t>(value.sin) ^ negate)) * factor;
        }
        value.cos.store_unaligned(cos + pair);
        value.sin.store_unaligned(sin + pair);
    }
}

/// The common case: one integer position and no source.
template <class A, bool Plain>
RW_INLINE void fill_integer_registers(const rotate_params& params, const std::uint64_t* steps, std::uint64_t position,
                                      std::int64_t count, float* cos, float* sin) {
    fill_registers<A, Plain>(
        params, count, cos, sin, [=](std::int64_t pair) __attribute__((always_inline)) {
            return upper_products<A>(steps + pair, position);
        });
}

/// Any position, on several axes, minus that of a source.
template <class A, bool Plain>
void fill_general_registers(const rotate_params& params, const position_times_rates& target,
                            const position_times_rates& source, std::int64_t count, float* cos, float* sin) {
    fill_registers<A, Plain>(
        params, count, cos, sin, [&](std::int64_t pair) __attribute__((always_inline)) {
            return upper_difference<A>(target, source, pair);
        });
}

/// The last pairs [begin, end) of a row, which fill no register.
template <class A, bool Plain>
void fill_last(const rotate_params& params, const position_times_rates& target, const position_times_rates& source,
               std::int64_t begin, std::int64_t end, float* cos, float* sin) {
    float last[2 * static_cast<std::size_t>(lane_count<A>)];
    float* const last_sin = last + lane_count<A>;
    fill_general_registers<A, Plain>(params, last_rates<A>(target, begin, end - begin),
                                     last_rates<A>(source, begin, end - begin), lane_count<A>, last, last_sin);
    const auto bytes = static_cast<std::size_t>(end - begin) * sizeof(float);
    std::memcpy(cos + begin, last, bytes);
    std::memcpy(sin + begin, last_sin, bytes);
}

/// Cosines and sines of all pairs at one position.
template <class A, bool Plain>
void fill_cos_sin(const rotate_params& params, const token_position& at, const token_position& source_at, float* cos,
                  float* sin) {
    const std::int64_t axes = params.target.positions.axes, full = params.pairs & -lane_count<A>;
    const bool integer = axes == 1 && at.fraction == 0 && params.source.steps == nullptr;
    if (integer) {
        fill_integer_registers<A, Plain>(params, params.target.steps, at.whole[0], full, cos, sin);
        if (full == params.pairs) return;
    }
    const position_times_rates target{at, params.target.steps, axes, params.pairs};
    const position_times_rates source{source_at, params.source.steps, params.source.positions.axes, params.pairs};
    if (!integer) fill_general_registers<A, Plain>(params, target, source, full, cos, sin);
    if (full < params.pairs) fill_last<A, Plain>(params, target, source, full, params.pairs, cos, sin);
}

/// Multiplies the row of the queries by 2^(−x) and writes that of the keys, multiplied by 2^x, or the inverses. Rows
/// are padded to whole registers.
template <class A>
void apply_magnitude(const rotate_params& params, const token_position& at, const token_position& source_at, float* cos,
                     float* sin, float* k_cos, float* k_sin) {
    using F = floats<A>;
    const position_times_rates target{at, params.target.magnitude_rates, 1, params.pairs};
    const position_times_rates source{source_at, params.source.magnitude_rates, 1, params.pairs};
    const std::int64_t rest = params.pairs % lane_count<A>, full = params.pairs - rest;
    const last_rates<A> last_target(target, full, rest), last_source(source, full, rest);
    for (std::int64_t pair = 0; pair < params.pairs; pair += lane_count<A>) {
        const words<A> x =
            pair < full ? upper_difference<A>(target, source, pair) : upper_difference<A>(last_target, last_source, 0);
        const words<A> opposite = words<A>(0U) - x;
        const F q = exp2_fixed<F>(params.invert_magnitude ? x : opposite);
        const F k = exp2_fixed<F>(params.invert_magnitude ? opposite : x);
        const F c = F::load_unaligned(cos + pair), s = F::load_unaligned(sin + pair);
        F(c * k).store_unaligned(k_cos + pair);
        F(s * k).store_unaligned(k_sin + pair);
        F(c * q).store_unaligned(cos + pair);
        F(s * q).store_unaligned(sin + pair);
    }
}

/// Replaces a NaN by one whose lower half is zero, as the rounding to bf16 expects.
template <class A>
RW_INLINE floats<A> canonical(const floats<A>& value) {
    return select(isnan(value), floats<A>(__builtin_nanf("")), value);
}

/// Elements of one row of a caller-supplied table, one every `stride`, as floats in whole registers. The output is
/// padded to whole registers.
template <class A, class Element>
void copy_table_row(const Element* source, std::int64_t stride, bool negate, std::int64_t pairs, float* target) {
    const words<A> sign(negate ? 0x80000000U : 0U);
    constexpr std::int64_t n = lane_count<A>;
    for (std::int64_t pair = 0; pair < pairs; pair += n) {
        floats<A> value;
        if (stride == 1 && pair + n <= pairs) {
            value = load_elements<A>(source + pair);
        } else {
            float lanes[static_cast<std::size_t>(n)] = {};
            for (std::int64_t i = 0; i < n && pair + i < pairs; ++i)
                lanes[i] = static_cast<float>(source[(pair + i) * stride]);
            value = floats<A>::load_unaligned(lanes);
        }
        canonical<A>(as<float>(words<A>(as<std::uint32_t>(value) ^ sign))).store_unaligned(target + pair);
    }
}

/// Cosines and sines from a caller-supplied table, which holds any factor already.
template <class A>
void fill_from_table(const rotate_params& params, bool interleaved, std::int64_t batch_row, std::int64_t token,
                     float* cos, float* sin) {
    const cos_sin_table& table = params.table;
    const std::int64_t table_row =
        table.order == cos_sin_table::rows_are::by_token ? token : params.target.positions.index(batch_row, token);
    const std::int64_t start = (table.batch == 1 ? 0 : batch_row) * table.stride_batch + table_row * table.stride_row;
    const std::int64_t stride = interleaved && table.columns == 2 * params.pairs ? 2 : 1;
    const auto copy = [&]<class Element>(const void* values, bool negate, float* target) {
        copy_table_row<A>(static_cast<const Element*>(values) + start, stride, negate, params.pairs, target);
    };
    const auto copy_both = [&]<class Element>(Element) {
        copy.template operator()<Element>(table.cos, false, cos);
        copy.template operator()<Element>(table.sin, params.negate_angle, sin);
    };
    if (table.type == element_type::bf16) return copy_both(bf16{});
    if (table.type == element_type::f16) return copy_both(f16{});
    copy_both(float{});
}

}  // namespace ropewalk::cpu::detail
