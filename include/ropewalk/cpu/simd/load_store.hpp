// Conversion of elements to registers of floats, and back.
#pragma once

#include "ropewalk/cpu/simd/simd.hpp"

namespace ropewalk::cpu::detail {

/// Rounds to nearest even in the upper halves, and keeps NaNs. The lower halves are unspecified.
template <class A>
RW_INLINE words<A> rounded_to_bf16(const floats<A>& value) {
    const words<A> bits = as<std::uint32_t>(value);
    const words<A> odd = (bits >> 16) & words<A>(1U);
    const words<A> rounded = bits + (odd + words<A>(0x7fffU));
    const words<A> quiet = bits | words<A>(0x400000U);
    return as<std::uint32_t>(select(isnan(value), as<float>(quiet), as<float>(rounded)));
}

/// Widens lane_count<A> halves where the machine has no instruction for it. Signalling NaNs become quiet. No
/// intermediate float is subnormal, because a thread may flush those to zero.
template <class A>
RW_INLINE floats<A> widen_f16(const f16* source) {
    const words<A> half = load_upper_halves<A>(&source->bits) >> 16, shifted = (half & words<A>(0x7fffU)) << 13;
    const floats<A> rebased = as<float>(words<A>(shifted + words<A>(0x38000000U)));
    // The mantissa of a subnormal after a leading 1, which is then subtracted.
    const floats<A> subnormal = as<float>(words<A>(shifted + words<A>(0x38800000U))) - floats<A>(0x1p-14F);
    const floats<A> value = select(rebased < floats<A>(0x1p-14F), subnormal, rebased);
    // Infinities and NaNs are 65536 or above now.
    const floats<A> none(0.0F);
    const floats<A> infinite = select(value < floats<A>(65536.0F), none, as<float>(words<A>(0x7f800000U)));
    const floats<A> quiet = select(value > floats<A>(65536.0F), as<float>(words<A>(0x400000U)), none);
    const words<A> bits = as<std::uint32_t>(value) | as<std::uint32_t>(infinite) | as<std::uint32_t>(quiet);
    return as<float>(words<A>(bits | ((half & words<A>(0x8000U)) << 16)));
}

/// Narrows as detail::float_to_f16() does.
template <class A>
RW_INLINE void narrow_f16(f16* target, const floats<A>& value) {
    const words<A> bits = as<std::uint32_t>(value), magnitude = bits & words<A>(0x7fffffffU);
    const floats<A> size = as<float>(magnitude);
    const words<A> odd = (magnitude >> 13) & words<A>(1U);
    const words<A> normal = (magnitude + (odd + words<A>(0xfffU)) - words<A>(0x38000000U)) >> 13;
    const words<A> subnormal = as<std::uint32_t>(floats<A>(size + floats<A>(0.5F))) - words<A>(0x3f000000U);
    const words<A> nan = words<A>(0x7e00U) | ((magnitude >> 13) & words<A>(0x3ffU));
    floats<A> half = select(size < floats<A>(0x1p-14F), as<float>(subnormal), as<float>(normal));
    half = select(size >= floats<A>(65520.0F), as<float>(words<A>(0x7c00U)), half);
    half = select(isnan(size), as<float>(nan), half);
    const words<A> sign = (bits >> 16) & words<A>(0x8000U);
    store_upper_halves<A>(&target->bits, words<A>((as<std::uint32_t>(half) | sign) << 16));
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
        return widen_f16<A>(source);
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
        narrow_f16<A>(target, value);
    }
}

/// 2 · lane_count<A> bf16 of one register, as even and odd elements: a shift and a mask widen them, without a shuffle.
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

/// Narrows floats whose NaNs have a zero lower half, as arithmetic on widened bf16 makes them.
template <class A>
RW_INLINE void store_bf16(bf16* target, const floats<A>& even, const floats<A>& odd) {
    round_to_bf16_pairs<A>(as<std::uint32_t>(even), as<std::uint32_t>(odd))
        .store_unaligned(reinterpret_cast<std::uint32_t*>(target));
}

}  // namespace ropewalk::cpu::detail
