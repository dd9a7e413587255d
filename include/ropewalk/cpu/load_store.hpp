// Elements of any type to and from registers of floats.
#pragma once

#include <array>

#include "ropewalk/cpu/simd.hpp"

namespace ropewalk::cpu::detail {

/// The upper halves hold the value rounded to nearest even, a NaN stays one; the lower halves are rubbish.
template <class A>
RW_INLINE words<A> rounded_to_bf16(const floats<A>& value) {
    const words<A> bits = as<std::uint32_t>(value);
    const words<A> odd = (bits >> 16) & words<A>(1U);
    const words<A> rounded = bits + (odd + words<A>(0x7fffU));
    const words<A> quiet = bits | words<A>(0x400000U);
    return as<std::uint32_t>(xsimd::select(value != value, as<float>(quiet), as<float>(rounded)));
}

/// lane_count<A> consecutive elements.
template <class A, class T>
RW_INLINE floats<A> load_elements(const T* source) {
    if constexpr (std::is_same_v<T, float>) {
        return floats<A>::load_unaligned(source);
    } else if constexpr (std::is_same_v<T, bf16>) {
        return as<float>(load_upper_halves<A>(&source->bits));
    } else if constexpr (converts_f16<A>) {
        return load_f16<A>(source);
    } else {
        std::array<float, static_cast<std::size_t>(lane_count<A>)> values;
        for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(source[i]);
        return floats<A>::load_unaligned(values.data());
    }
}

template <class A, class T>
RW_INLINE void store_elements(T* target, const floats<A>& value) {
    if constexpr (std::is_same_v<T, float>) {
        value.store_unaligned(target);
    } else if constexpr (std::is_same_v<T, bf16>) {
        store_upper_halves<A>(&target->bits, rounded_to_bf16<A>(value));
    } else if constexpr (converts_f16<A>) {
        store_f16<A>(target, value);
    } else {
        std::array<float, static_cast<std::size_t>(lane_count<A>)> values;
        value.store_unaligned(values.data());
        for (std::size_t i = 0; i < values.size(); ++i) target[i] = f16(values[i]);
    }
}

/// A register holds 2 · lane_count<A> bf16 as (even, odd) elements: a shift and a mask widen them, no shuffle.
template <class A>
struct even_odd {
    floats<A> even;
    floats<A> odd;
};

template <class A>
RW_INLINE even_odd<A> load_bf16(const bf16* source) {
    const auto both = words<A>::load_unaligned(reinterpret_cast<const std::uint32_t*>(source));
    return {as<float>(words<A>(both << 16)), as<float>(words<A>(both & words<A>(0xffff0000U)))};
}

/// Floats whose NaNs have a zero lower half: those that arithmetic makes of widened bf16.
template <class A>
RW_INLINE void store_bf16(bf16* target, const floats<A>& even, const floats<A>& odd) {
    round_to_bf16_pairs<A>(as<std::uint32_t>(even), as<std::uint32_t>(odd))
        .store_unaligned(reinterpret_cast<std::uint32_t*>(target));
}

}  // namespace ropewalk::cpu::detail
