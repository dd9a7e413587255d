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

/// Floats per register.
template <class A>
inline constexpr std::int64_t lane_count = static_cast<std::int64_t>(floats<A>::size);

/// The next narrower architecture that runs wherever A runs, for the end of a row.
template <class A>
using narrower = std::conditional_t<is_avx512<A>, any_avx2, std::conditional_t<is_avx2<A>, xsimd::sse4_2, scalar_arch>>;

/// The same bits as lanes of another type.
template <class To, class From, class A>
RW_INLINE xsimd::batch<To, A> as(const xsimd::batch<From, A>& value) {
#if XSIMD_VERSION_MAJOR >= 11
    return xsimd::bitwise_cast<To>(value);
#else
    return xsimd::bitwise_cast<xsimd::batch<To, A>>(value);
#endif
}

/// Two's complement integers as floats.
template <class A>
RW_INLINE floats<A> from_signed(const words<A>& value) {
    return xsimd::to_float(as<std::int32_t>(value));
}

}  // namespace detail
}  // namespace ropewalk::cpu

#include "ropewalk/cpu/simd/rounding.inl"
#if defined(__x86_64__)
#include "ropewalk/cpu/simd/x86.inl"
#else
namespace ropewalk::cpu::detail {

template <class A>
RW_INLINE floats<A> multiply_add(const floats<A>& a, const floats<A>& b, const floats<A>& c) {
    return xsimd::fma(a, b, c);
}
template <class A>
RW_INLINE floats<A> multiply_subtract(const floats<A>& a, const floats<A>& b, const floats<A>& c) {
    return xsimd::fms(a, b, c);
}

}  // namespace ropewalk::cpu::detail
#include "ropewalk/cpu/simd/generic.inl"
#endif
