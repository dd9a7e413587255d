// Registers by xsimd. Included by simd.hpp.
RW_BEGIN_INTRINSICS
#include <xsimd/xsimd.hpp>
RW_END_INTRINSICS

namespace ropewalk::cpu {

namespace detail {
template <class A>
inline constexpr bool is_avx512 = std::is_base_of_v<xsimd::avx512bw, A>;
template <class A>
inline constexpr bool is_avx2 = std::is_base_of_v<xsimd::avx2, A>;

using fused_avx2 = xsimd::fma3<xsimd::avx2>;
/// The 256-bit architecture of this translation unit: -mavx2 and -mavx512f do not imply FMA.
using any_avx2 = std::conditional_t<fused_avx2::supported(), fused_avx2, xsimd::avx2>;
/// The kernels multiply 64-bit words, which needs AVX-512 DQ.
inline constexpr bool has_avx512 = is_avx512<xsimd::default_arch> && xsimd::avx512dq::supported();
}  // namespace detail

/// The widest architecture that this translation unit is compiled for and that the kernels know.
using native_arch =
    std::conditional_t<std::is_base_of_v<xsimd::avx, xsimd::default_arch> && !detail::is_avx2<xsimd::default_arch>,
                       xsimd::sse2,
                       std::conditional_t<std::is_base_of_v<xsimd::avx512f, xsimd::default_arch> && !detail::has_avx512,
                                          detail::any_avx2, xsimd::default_arch>>;

namespace detail {

template <class A>
using floats = xsimd::batch<float, A>;
template <class A>
using words = xsimd::batch<std::uint32_t, A>;
template <class A>
using quads = xsimd::batch<std::uint64_t, A>;

/// Floats per register; 1 for scalar_arch.
template <class A>
inline constexpr std::int64_t lane_count = static_cast<std::int64_t>(floats<A>::size);
template <>
inline constexpr std::int64_t lane_count<scalar_arch> = 1;

/// The next narrower architecture that runs wherever A runs, for the end of a row.
template <class A>
using narrower = std::conditional_t<is_avx512<A> && fused_avx2::supported(), fused_avx2, scalar_arch>;

/// The same bits as lanes of another type.
template <class To, class From, class A>
RW_INLINE xsimd::batch<To, A> as(const xsimd::batch<From, A>& value) {
#if XSIMD_VERSION_MAJOR >= 11
    return xsimd::bitwise_cast<To>(value);
#else
    return xsimd::bitwise_cast<xsimd::batch<To, A>>(value);
#endif
}

/// The upper halves of even and odd, rounded to nearest even and interleaved, even ones first. The lower half of a NaN
/// must be zero: adding half a unit could carry into its sign.
template <class A>
RW_INLINE words<A> round_to_bf16_pairs_generic(const words<A>& even, const words<A>& odd) {
    const words<A> one(1U), half(0x7fffU);
    const words<A> low = (even + (((even >> 16) & one) + half)) >> 16;
    const words<A> high = (odd + (((odd >> 16) & one) + half)) & words<A>(0xffff0000U);
    return low | high;
}

}  // namespace detail
}  // namespace ropewalk::cpu

#if defined(__x86_64__)
#include "ropewalk/cpu/simd/x86.inl"
#else
#include "ropewalk/cpu/simd/generic.inl"
#endif

namespace ropewalk::detail {

template <class A>
struct lanes<xsimd::batch<float, A>> {
    using F = xsimd::batch<float, A>;
    using bits = xsimd::batch<std::uint32_t, A>;

    static RW_INLINE F broadcast(float value) { return F(value); }
    static RW_INLINE bits broadcast_bits(std::uint32_t value) { return bits(value); }
    static RW_INLINE F multiply_add(const F& a, const F& b, const F& c) {
        return cpu::detail::multiply_add<A>(a, b, c);
    }
    static RW_INLINE F multiply_subtract(const F& a, const F& b, const F& c) {
        return cpu::detail::multiply_subtract<A>(a, b, c);
    }
    static RW_INLINE F from_signed(const bits& value) { return xsimd::to_float(cpu::detail::as<std::int32_t>(value)); }
    static RW_INLINE bits to_bits(const F& value) { return cpu::detail::as<std::uint32_t>(value); }
    static RW_INLINE F from_bits(const bits& value) { return cpu::detail::as<float>(value); }
    static RW_INLINE bits shift_left(const bits& value, int count) { return value << count; }
    static RW_INLINE bits shift_right(const bits& value, int count) { return value >> count; }
    template <int Bit>
    static RW_INLINE F choose(const bits& which, const F& a, const F& b) {
        return cpu::detail::choose<A, Bit>(which, a, b);
    }
};

}  // namespace ropewalk::detail
