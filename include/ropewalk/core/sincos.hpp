// Cosine and sine of a phase, and 2^x of a fixed-point exponent, for a float, a SIMD register and a GPU thread.
#pragma once

#include <cstdint>

#include "ropewalk/core/compiler.hpp"
#include "ropewalk/core/lanes.hpp"

namespace ropewalk {

/// Cosine and sine of one angle.
template <class F>
struct cos_sin_pair {
    F cos;
    F sin;
};

/// Returns cosine and sine of `phase` · 2^-32 turns, the top half of a 64-bit phase, with the sine negated where
/// `negate` is 2^31 instead of 0. Max error 9.6e-8, with fused multiply-add 7.8e-8; both were found by testing every
/// phase.
///
/// The phase is reduced to the nearest quarter turn, t in [−1/8, 1/8). Near-minimax polynomials approximate sin 2πt and
/// cos 2πt there (fitted at Chebyshev nodes, truncation error below 1e-8). 2π is split into two floats to keep the
/// error of the leading term of the sine below half a unit.
template <class F>
RW_HD RW_INLINE constexpr cos_sin_pair<F> cos_sin(
    typename detail::lanes<F>::bits phase,
    typename detail::lanes<F>::bits negate = detail::lanes<F>::broadcast_bits(0U)) {
    using l = detail::lanes<F>;
    using bits = typename l::bits;
    // The quarter is in the two highest bits of `phase` + 1/8. Shifting them out of the phase leaves 4 · 2^32 t,
    // signed.
    const bits quarter = phase + (l::broadcast_bits(0x20000000U) + negate);
    const F t = l::from_signed(l::shift_left(phase, 2)) * l::broadcast(0x1p-34F);
    const F square = t * t;

    F sine = l::multiply_add(square, l::broadcast(-0x1.2ee7bcp+6F), l::broadcast(0x1.4665e8p+6F));
    sine = l::multiply_add(square, sine, l::broadcast(-0x1.4abbccp+5F));
    sine = l::multiply_add(square, sine, l::broadcast(-0x1.777a5cp-23F));
    sine = l::multiply_add(t, l::broadcast(0x1.921fb6p+2F), t * sine);

    F cosine = l::multiply_add(square, l::broadcast(0x1.db6492p+5F), l::broadcast(-0x1.55cb98p+6F));
    cosine = l::multiply_add(square, cosine, l::broadcast(0x1.03c1eap+6F));
    cosine = l::multiply_add(square, cosine, l::broadcast(-0x1.3bd3ccp+4F));
    cosine = l::multiply_add(square, cosine, l::broadcast(1.0F));

    // An odd quarter swaps cosine and sine. The upper bit of the quarter negates the sine, that of quarter + 1 the
    // cosine.
    const bits sign = l::broadcast_bits(0x80000000U);
    const F c = l::template choose<30>(quarter, sine, cosine), s = l::template choose<30>(quarter, cosine, sine);
    return {l::from_bits(l::to_bits(c) ^ ((phase + l::broadcast_bits(0x60000000U)) & sign)),
            l::from_bits(l::to_bits(s) ^ (quarter & sign))};
}

/// Returns 2^(exponent · 2^-24) for a two's complement exponent with |exponent · 2^-24| < 126. Relative error below
/// 1.3e-7.
template <class F>
RW_HD RW_INLINE constexpr F exp2_fixed(typename detail::lanes<F>::bits exponent) {
    using l = detail::lanes<F>;
    using bits = typename l::bits;
    // The bias of 128.5 makes the logical shift round to the nearest integer.
    const bits whole = l::shift_right(exponent + l::broadcast_bits(0x80800000U), 24);
    const F f =
        l::from_signed(exponent + l::broadcast_bits(0x80000000U) - l::shift_left(whole, 24)) * l::broadcast(0x1p-24F);
    F sum = l::multiply_add(f, l::broadcast(0x1.44138ap-13F), l::broadcast(0x1.5f0890p-10F));
    sum = l::multiply_add(f, sum, l::broadcast(0x1.3b2a54p-7F));
    sum = l::multiply_add(f, sum, l::broadcast(0x1.c6af6cp-5F));
    sum = l::multiply_add(f, sum, l::broadcast(0x1.ebfbe0p-3F));
    sum = l::multiply_add(f, sum, l::broadcast(0x1.62e430p-1F));
    sum = l::multiply_add(f, sum, l::broadcast(1.0F));
    return l::from_bits(l::to_bits(sum) + l::shift_left(whole - l::broadcast_bits(128U), 23));
}

}  // namespace ropewalk
