// Several registers that a formula treats as one.
#pragma once

#include <cstddef>

#include "ropewalk/cpu/simd.hpp"

namespace ropewalk::cpu::detail {

/// N registers side by side. What a formula does to them are N chains of operations by turns, so that each has
/// something to wait for beside its own last result.
template <class R, int N>
struct side_by_side {
    R of[static_cast<std::size_t>(N)];

    static RW_INLINE side_by_side all(const R& value) {
        return each([&](int) __attribute__((always_inline)) { return value; });
    }
    template <class F>
    static RW_INLINE side_by_side each(const F& f) {
        side_by_side result;
        RW_UNROLL
        for (int i = 0; i < N; ++i) result.of[i] = f(i);
        return result;
    }
    friend RW_INLINE side_by_side operator+(const side_by_side& a, const side_by_side& b) {
        return each([&](int i) __attribute__((always_inline)) { return a.of[i] + b.of[i]; });
    }
    friend RW_INLINE side_by_side operator*(const side_by_side& a, const side_by_side& b) {
        return each([&](int i) __attribute__((always_inline)) { return a.of[i] * b.of[i]; });
    }
    friend RW_INLINE side_by_side operator&(const side_by_side& a, const side_by_side& b) {
        return each([&](int i) __attribute__((always_inline)) { return a.of[i] & b.of[i]; });
    }
    friend RW_INLINE side_by_side operator^(const side_by_side& a, const side_by_side& b) {
        return each([&](int i) __attribute__((always_inline)) { return a.of[i] ^ b.of[i]; });
    }
};

}  // namespace ropewalk::cpu::detail

namespace ropewalk::detail {

/// What cos_sin() asks for.
template <class R, int N>
struct lanes<cpu::detail::side_by_side<R, N>> {
    using one = lanes<R>;
    using F = cpu::detail::side_by_side<R, N>;
    using bits = cpu::detail::side_by_side<typename one::bits, N>;

    static RW_INLINE F broadcast(float value) { return F::all(one::broadcast(value)); }
    static RW_INLINE bits broadcast_bits(std::uint32_t value) { return bits::all(one::broadcast_bits(value)); }
    static RW_INLINE F multiply_add(const F& a, const F& b, const F& c) {
        return F::each([&](int i)
                           __attribute__((always_inline)) { return one::multiply_add(a.of[i], b.of[i], c.of[i]); });
    }
    static RW_INLINE F from_signed(const bits& value) {
        return F::each([&](int i) __attribute__((always_inline)) { return one::from_signed(value.of[i]); });
    }
    static RW_INLINE bits to_bits(const F& value) {
        return bits::each([&](int i) __attribute__((always_inline)) { return one::to_bits(value.of[i]); });
    }
    static RW_INLINE F from_bits(const bits& value) {
        return F::each([&](int i) __attribute__((always_inline)) { return one::from_bits(value.of[i]); });
    }
    static RW_INLINE bits shift_left(const bits& value, int count) {
        return bits::each([&](int i) __attribute__((always_inline)) { return one::shift_left(value.of[i], count); });
    }
    template <int Bit>
    static RW_INLINE F choose(const bits& which, const F& a, const F& b) {
        return F::each([&](int i) __attribute__((always_inline)) {
            return one::template choose<Bit>(which.of[i], a.of[i], b.of[i]);
        });
    }
};

}  // namespace ropewalk::detail
