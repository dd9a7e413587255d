// The loop over tokens, heads and blocks: every element is read once and written once.
#pragma once

#include <cstring>

#include "ropewalk/cpu/angles.hpp"
#include "ropewalk/cpu/block.hpp"

namespace ropewalk::cpu::detail {

/// Where the rows of one token lie.
struct row {
    const float* c;
    const float* s;
};

/// Calls f.template operator()<Block>(pair) for each block of the pairs [pair, pairs): B as long as it fits, then the
/// narrower ones. Unrolls where `pairs` is a constant.
template <class B, class F>
RW_INLINE void for_each_block(std::int64_t pair, std::int64_t pairs, const F& f) {
    RW_UNROLL
    for (; pair + B::pairs <= pairs; pair += B::pairs) f.template operator()<B>(pair);
    if constexpr (B::pairs > 1) {
        if (pair < pairs) for_each_block<typename B::next>(pair, pairs, f);
    }
}

/// Puts cosines and sines into the order of the blocks.
template <class T, class L, class A>
RW_INLINE void arrange_row(std::int64_t pairs, float* c, float* s, const float* cos, const float* sin) {
    constexpr std::int64_t n = row_floats<T, L>;
    for_each_block<block<T, L, A>>(0, pairs, [&]<class B>(std::int64_t pair) __attribute__((always_inline)) {
        B::arrange(c + n * pair, s + n * pair, cos + pair, sin + pair);
    });
}

/// One kernel: element type, layout, architecture, and the number of pairs where it is a constant (0: any).
template <class T, class L, class A, std::int64_t Pairs>
struct rotate_kernel {
    static constexpr std::int64_t n = row_floats<T, L>;
    /// A software prefetch this far ahead, bytes: measured best out of cache.
    static constexpr std::int64_t prefetch = sizeof(T) == 4 ? 512 : 3072;
    /// Registers that hold cosines and sines while the heads go by.
    static constexpr int held = is_avx512<A> ? 16 : 8;

    static RW_INLINE std::int64_t pairs(const job& work) { return Pairs != 0 ? Pairs : work.pairs; }

    /// Copies what does not turn.
    static RW_INLINE void pass_through(const job& work, const T* in, T* out, std::int64_t head_dim) {
        if (in == out) return;
        const std::int64_t end = work.rotary_offset + 2 * pairs(work);
        if (work.rotary_offset > 0) std::memcpy(out, in, static_cast<std::size_t>(work.rotary_offset) * sizeof(T));
        if (end < head_dim) std::memcpy(out + end, in + end, static_cast<std::size_t>(head_dim - end) * sizeof(T));
    }

    static RW_INLINE void turn_head(const job& work, const row& r, const T* in, T* out) {
        const std::int64_t half = pairs(work);
        for_each_block<block<T, L, A>>(0, half, [&]<class B>(std::int64_t pair) __attribute__((always_inline)) {
            const std::int64_t at = L::first(pair, half);
            B::apply(B::turn::load(r.c + n * pair, r.s + n * pair), in + at, out + at, half);
        });
    }

    /// The blocks [pair, pair + N blocks) of all heads, their cosines and sines held in registers.
    template <class B, int N>
    static RW_INLINE void turn_chunk(const job& work, const row& r, std::int64_t pair, const T* in, T* out,
                                     const tensor& from, const tensor& to) {
        typename B::turn turns[N];
        RW_UNROLL
        for (int i = 0; i < N; ++i) {
            turns[i] = B::turn::load(r.c + n * (pair + i * B::pairs), r.s + n * (pair + i * B::pairs));
            turns[i].pin();
        }
        const std::int64_t half = pairs(work), start = L::first(pair, half), stride = L::first(B::pairs, half);
        in += start;
        out += start;
        for (std::int64_t head = 0; head < from.heads; ++head, in += from.stride_head, out += to.stride_head) {
            RW_UNROLL
            for (int i = 0; i < N; ++i) B::apply(turns[i], in + i * stride, out + i * stride, half);
        }
    }

    /// All heads of one token, the pairs outside: for data in cache.
    static RW_INLINE void turn_token_in_cache(const job& work, const row& r, const T* in, T* out, const tensor& from,
                                              const tensor& to) {
        using B = block<T, L, A>;
        constexpr int chunk = held / B::registers;
        std::int64_t pair = 0;
        for (; pair + chunk * B::pairs <= pairs(work); pair += chunk * B::pairs) {
            turn_chunk<B, chunk>(work, r, pair, in, out, from, to);
        }
        for_each_block<block<T, L, A>>(pair, pairs(work), [&]<class C>(std::int64_t at) __attribute__((always_inline)) {
            turn_chunk<C, 1>(work, r, at, in, out, from, to);
        });
    }

    /// All heads of the tokens of a tile, in the order of their addresses.
    static RW_INLINE void turn_tile_streaming(const job& work, const float* rows, std::int64_t count, const T* in, T* out,
                                              const tensor& from, const tensor& to) {
        const std::int64_t stride = padded_row(work.pairs);
        for (std::int64_t head = 0; head < from.heads; ++head) {
            for (std::int64_t token = 0; token < count; ++token) {
                const T* source = in + head * from.stride_head + token * from.stride_token;
                T* target = out + head * to.stride_head + token * to.stride_token;
                const auto* ahead = reinterpret_cast<const char*>(source + work.rotary_offset) + prefetch;
                for (std::int64_t byte = 0; byte < 2 * pairs(work) * static_cast<std::int64_t>(sizeof(T)); byte += 64) {
                    RW_PREFETCH(ahead + byte);
                }
                pass_through(work, source, target, from.head_dim);
                turn_head(work, {rows + 4 * stride * token, rows + 4 * stride * token + stride},
                          source + work.rotary_offset, target + work.rotary_offset);
            }
        }
    }

    static RW_INLINE void turn_tensor(const job& work, const float* rows, std::int64_t batch, std::int64_t token,
                                      std::int64_t count, const tensor& from, const tensor& to) {
        if (!from.exists()) return;
        const T* in = static_cast<const T*>(from.data) + batch * from.stride_batch + token * from.stride_token;
        T* out = static_cast<T*>(to.data) + batch * to.stride_batch + token * to.stride_token;
        if (work.streaming || work.tile > 1) {
            turn_tile_streaming(work, rows, count, in, out, from, to);
            return;
        }
        if (in != out && 2 * pairs(work) < from.head_dim) {
            for (std::int64_t head = 0; head < from.heads; ++head) {
                pass_through(work, in + head * from.stride_head, out + head * to.stride_head, from.head_dim);
            }
        }
        turn_token_in_cache(work, {rows, rows + padded_row(work.pairs)}, in + work.rotary_offset,
                            out + work.rotary_offset, from, to);
    }

    /// The rows of one token for queries and, where magnitudes differ, for keys: [q cos, q sin, k cos, k sin].
    static RW_INLINE void make_rows(const job& work, std::int64_t batch, std::int64_t token, float* rows, float* scratch) {
        const std::int64_t stride = padded_row(work.pairs);
        float* const cos = row_is_natural<T, L> ? rows : scratch;
        float* const sin = cos + stride;
        float* const k_cos = cos + 2 * stride;
        float* const k_sin = cos + 3 * stride;
        if (work.table.exists()) {
            fill_from_table<L>(work, batch, token, cos, sin);
        } else {
            split_position turn = position_at(work.turn.where, batch, token, 0), unturn{};
            if (work.unturn.steps != nullptr) unturn = position_at(work.unturn.where, batch, token, 0);
            fill_angles<A>(work, turn, unturn, 0, pairs(work), cos, sin);
            if (work.decays) {
                turn.whole -= static_cast<std::uint64_t>(work.turn.centre);
                unturn.whole -= static_cast<std::uint64_t>(work.unturn.centre);
                fill_magnitudes<A>(work, turn, unturn, 0, pairs(work), cos, sin, k_cos, k_sin);
            }
        }
        if constexpr (!row_is_natural<T, L>) {
            arrange_row<T, L, A>(pairs(work), rows, rows + stride, cos, sin);
            if (work.decays) arrange_row<T, L, A>(pairs(work), rows + 2 * stride, rows + 3 * stride, k_cos, k_sin);
        }
    }

    static void run(const job& work, std::int64_t begin, std::int64_t end, float* scratch) {
        const std::int64_t stride = padded_row(work.pairs), tokens = work.tokens();
        float* const rows = scratch + 4 * stride;
        for (std::int64_t at = begin; at < end;) {
            const std::int64_t batch = at / tokens, token = at % tokens;
            std::int64_t count = work.tile < end - at ? work.tile : end - at;
            if (count > tokens - token) count = tokens - token;
            for (std::int64_t i = 0; i < count; ++i) make_rows(work, batch, token + i, rows + 4 * stride * i, scratch);
            turn_tensor(work, rows, batch, token, count, work.q_in, work.q_out);
            turn_tensor(work, rows + (work.decays ? 2 * stride : 0), batch, token, count, work.k_in, work.k_out);
            at += count;
        }
    }
};

/// The kernel for a number of pairs: a constant for the head widths that models have.
template <class T, class L, class A>
range_function kernel_for(std::int64_t pairs) {
    switch (pairs) {
        case 32: return rotate_kernel<T, L, A, 32>::run;
        case 40: return rotate_kernel<T, L, A, 40>::run;
        case 48: return rotate_kernel<T, L, A, 48>::run;
        case 64: return rotate_kernel<T, L, A, 64>::run;
        case 128: return rotate_kernel<T, L, A, 128>::run;
        default: return rotate_kernel<T, L, A, 0>::run;
    }
}

}  // namespace ropewalk::cpu::detail
