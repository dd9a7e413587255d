// Blocks: the pairs that one architecture rotates at once, per element type and layout.
//
// The cos_sin row of a token has the order of its blocks, so that the inner loop needs no shuffle: pair by pair for
// half_split f32 and f16; each value twice, with the first sine of the two negated, for interleaved f32 and f16; pair
// by pair for interleaved bf16; the even pairs of a block before the odd ones for half_split bf16.
#pragma once

#include "ropewalk/core/layout.hpp"
#include "ropewalk/core/rotation.hpp"
#include "ropewalk/cpu/simd/load_store.hpp"

namespace ropewalk::cpu::detail {

/// Floats per pair of a cos_sin row.
template <class T, class L>
inline constexpr std::int64_t row_floats = std::is_same_v<L, interleaved> && !std::is_same_v<T, bf16> ? 2 : 1;

/// True where a row is in the order of the pairs.
template <class T, class L>
inline constexpr bool row_is_natural = std::is_same_v<T, bf16> == std::is_same_v<L, interleaved>;

/// Cosines and sines in registers.
template <class A>
struct held_row {
    floats<A> c;
    floats<A> s;

    static RW_INLINE held_row load(const float* c, const float* s) {
        return {floats<A>::load_unaligned(c), floats<A>::load_unaligned(s)};
    }
    RW_INLINE void pin() {
        RW_PIN(c.data);
        RW_PIN(s.data);
    }
};

template <class T, class L, class A>
struct block;

/// half_split in the order of the pairs: x and y of lane_count pairs in one register each.
template <class T, class A>
struct half_split_block {
    using next = std::conditional_t<std::is_same_v<narrower<A>, scalar_arch>, block<T, half_split, scalar_arch>,
                                    half_split_block<T, narrower<A>>>;
    static constexpr std::int64_t pairs = lane_count<A>;
    static constexpr int registers = 2;
    using values = held_row<A>;

    static RW_INLINE void arrange(float* c, float* s, const float* cos, const float* sin) {
        floats<A>::load_unaligned(cos).store_unaligned(c);
        floats<A>::load_unaligned(sin).store_unaligned(s);
    }
    static RW_INLINE void apply(const values& r, const T* in, T* out, std::int64_t half) {
        floats<A> x = load_elements<A>(in), y = load_elements<A>(in + half);
        RW_PIN(x.data);
        RW_PIN(y.data);
        const auto rotated = rotate_pair(x, y, r.c, r.s);
        store_elements<A>(out, rotated.first);
        store_elements<A>(out + half, rotated.second);
    }
};

template <class T, class A>
struct block<T, half_split, A> : half_split_block<T, A> {};

/// interleaved, f32 and f16: x and y alternate in one register.
template <class T, class A>
struct block<T, interleaved, A> {
    using next = block<T, interleaved, narrower<A>>;
    static constexpr std::int64_t pairs = lane_count<A> / 2;
    static constexpr int registers = 2;
    using values = held_row<A>;

    /// Reads a whole register and uses half of it: scratch rows are padded.
    static RW_INLINE void arrange(float* c, float* s, const float* cos, const float* sin) {
        const auto negate_first = as<float>(quads<A>(std::uint64_t{0x80000000U}));
        twice_low<A>(floats<A>::load_unaligned(cos)).store_unaligned(c);
        (twice_low<A>(floats<A>::load_unaligned(sin)) ^ negate_first).store_unaligned(s);
    }
    static RW_INLINE void apply(const values& r, const T* in, T* out, std::int64_t /*half*/) {
        floats<A> own = load_elements<A>(in);
        RW_PIN(own.data);
        store_elements<A>(out, rotate_one(own, swap_pairs<A>(own), r.c, r.s));
    }
};

/// half_split, bf16: the even and the odd elements of a register, x and y.
template <class A>
struct block<bf16, half_split, A> {
    using next = half_split_block<bf16, A>;
    static constexpr std::int64_t pairs = 2 * lane_count<A>;
    static constexpr int registers = 4;
    struct values {
        held_row<A> even, odd;
        static RW_INLINE values load(const float* c, const float* s) {
            return {held_row<A>::load(c, s), held_row<A>::load(c + lane_count<A>, s + lane_count<A>)};
        }
        RW_INLINE void pin() {
            even.pin();
            odd.pin();
        }
    };

    static RW_INLINE void arrange(float* c, float* s, const float* cos, const float* sin) {
        split(c, cos);
        split(s, sin);
    }
    static RW_INLINE void apply(const values& r, const bf16* in, bf16* out, std::int64_t half) {
        const auto x = load_bf16<A>(in), y = load_bf16<A>(in + half);
        const auto even = rotate_pair(x.even, y.even, r.even.c, r.even.s);
        const auto odd = rotate_pair(x.odd, y.odd, r.odd.c, r.odd.s);
        store_bf16<A>(out, even.first, odd.first);
        store_bf16<A>(out + half, even.second, odd.second);
    }

private:
    static RW_INLINE void split(float* target, const float* source) {
        const auto a = floats<A>::load_unaligned(source), b = floats<A>::load_unaligned(source + lane_count<A>);
        even_lanes<A>(a, b).store_unaligned(target);
        odd_lanes<A>(a, b).store_unaligned(target + lane_count<A>);
    }
};

/// interleaved, bf16: the even elements of a register are x, the odd ones y.
template <class A>
struct block<bf16, interleaved, A> {
    using next = block<bf16, interleaved, narrower<A>>;
    static constexpr std::int64_t pairs = lane_count<A>;
    static constexpr int registers = 2;
    using values = held_row<A>;

    static RW_INLINE void arrange(float* /*c*/, float* /*s*/, const float* /*cos*/, const float* /*sin*/) {}
    static RW_INLINE void apply(const values& r, const bf16* in, bf16* out, std::int64_t /*half*/) {
        const auto both = load_bf16<A>(in);
        const auto rotated = rotate_pair(both.even, both.odd, r.c, r.s);
        store_bf16<A>(out, rotated.first, rotated.second);
    }
};

/// One pair at a time: the end of a row, in the row order of the wider blocks.
template <class T, class L>
struct scalar_block {
    static constexpr std::int64_t pairs = 1;
    static constexpr int registers = 2;
    struct values {
        float c, s;
        static RW_INLINE values load(const float* c, const float* s) { return {c[0], s[row_floats<T, L> - 1]}; }
        RW_INLINE void pin() {}
    };

    static RW_INLINE void arrange(float* c, float* s, const float* cos, const float* sin) {
        if constexpr (row_floats<T, L> == 2) {
            c[0] = c[1] = cos[0];
            s[0] = -sin[0];
            s[1] = sin[0];
        } else {
            c[0] = cos[0];
            s[0] = sin[0];
        }
    }
    static RW_INLINE void apply(const values& r, const T* in, T* out, std::int64_t half) {
        const std::int64_t second = L::second(0, half);
        const auto rotated = rotate_pair(static_cast<float>(in[0]), static_cast<float>(in[second]), r.c, r.s);
        out[0] = T(rotated.first);
        out[second] = T(rotated.second);
    }
};

template <class T>
struct block<T, half_split, scalar_arch> : scalar_block<T, half_split> {};
template <class T>
struct block<T, interleaved, scalar_arch> : scalar_block<T, interleaved> {};
template <>
struct block<bf16, half_split, scalar_arch> : scalar_block<bf16, half_split> {};
template <>
struct block<bf16, interleaved, scalar_arch> : scalar_block<bf16, interleaved> {};

}  // namespace ropewalk::cpu::detail
