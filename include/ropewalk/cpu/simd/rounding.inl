// Rounding of floats to bf16 for any register. Included by xsimd.inl and portable.inl.

namespace ropewalk::cpu::detail {

/// The upper halves of even and odd, rounded to nearest even and interleaved, even ones first. The lower half of a NaN
/// must be zero: adding half a unit could carry into its sign.
template <class A>
RW_INLINE words<A> round_to_bf16_pairs_generic(const words<A>& even, const words<A>& odd) {
    const words<A> one(1U), half(0x7fffU);
    const words<A> low = (even + (((even >> 16) & one) + half)) >> 16;
    const words<A> high = (odd + (((odd >> 16) & one) + half)) & words<A>(0xffff0000U);
    return low | high;
}

}  // namespace ropewalk::cpu::detail
