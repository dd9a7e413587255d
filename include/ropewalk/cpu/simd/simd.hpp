// SIMD operations beyond arithmetic: lane shuffles, half precision, 64-bit products.
// One code base serves xsimd 8 to 14, and with ROPEWALK_NO_XSIMD the vector extensions of GCC and Clang.
#pragma once

#include <cstdint>
#include <type_traits>

#include "ropewalk/core/compiler.hpp"
#include "ropewalk/core/element.hpp"
#include "ropewalk/core/lanes.hpp"

namespace ropewalk::cpu {

/// The architecture of one pair at a time, for the end of a row.
struct scalar_arch {};

}  // namespace ropewalk::cpu

#if defined(ROPEWALK_NO_XSIMD)
#include "ropewalk/cpu/simd/portable.inl"
#else
#include "ropewalk/cpu/simd/xsimd.inl"
#endif

namespace ropewalk::cpu::detail {

/// Operations of ropewalk::detail::lanes for a register.
template <class A>
struct register_lanes {
    using F = floats<A>;
    using bits = words<A>;

    static RW_INLINE F broadcast(float value) { return F(value); }
    static RW_INLINE bits broadcast_bits(std::uint32_t value) { return bits(value); }
    static RW_INLINE F multiply_add(const F& a, const F& b, const F& c) {
        return cpu::detail::multiply_add<A>(a, b, c);
    }
    static RW_INLINE F multiply_subtract(const F& a, const F& b, const F& c) {
        return cpu::detail::multiply_subtract<A>(a, b, c);
    }
    static RW_INLINE F from_signed(const bits& value) { return cpu::detail::from_signed<A>(value); }
    static RW_INLINE bits to_bits(const F& value) { return as<std::uint32_t>(value); }
    static RW_INLINE F from_bits(const bits& value) { return as<float>(value); }
    static RW_INLINE bits shift_left(const bits& value, int count) { return value << count; }
    static RW_INLINE bits shift_right(const bits& value, int count) { return value >> count; }
    template <int Bit>
    static RW_INLINE F choose(const bits& which, const F& a, const F& b) {
        return cpu::detail::choose<A, Bit>(which, a, b);
    }
};

}  // namespace ropewalk::cpu::detail

namespace ropewalk::detail {

template <class F>
    requires requires { typename F::arch_type; }
struct lanes<F> : cpu::detail::register_lanes<typename F::arch_type> {};

}  // namespace ropewalk::detail
