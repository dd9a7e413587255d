// Attention of many queries of a head over a tile of keys. A register holds one element of as many queries as it has
// lanes, so keys and values are used element by element, and no maximum or sum over keys crosses lanes.
#pragma once

#include "ropewalk/llama/cpu/simd.hpp"
#include "ropewalk/llama/cpu/tile.hpp"

namespace ropewalk::llama::cpu::detail {

/// Registers of queries per tile, and rows of keys, or elements of values, that they are multiplied with at once. Sums,
/// queries and one factor fill the registers.
template <class A>
inline constexpr int prefill_vectors = is_avx512<A> ? 2 : 3;
template <class A>
inline constexpr int prefill_rows = is_avx512<A> ? 8 : 4;

/// V registers of queries: query_state's q and out are [depth, V · lanes], row_max, row_sum and visible [V · lanes],
/// scores [keys, V · lanes].
template <class A, int V>
struct prefill_tile {
    using vector = floats<A>;
    static constexpr std::int64_t lanes = lane_count<A>;
    static constexpr std::int64_t width = V * lanes;

    struct keys {
        kv_tile<float> k, v;
        std::int64_t count;
        std::int64_t unmasked;  ///< keys that every query sees
    };

    template <int R>
    struct sums {
        vector of[R][V];

        RW_INLINE sums() {
            RW_UNROLL
            for (int r = 0; r < R; ++r) {
                RW_UNROLL
                for (int v = 0; v < V; ++v) of[r][v] = vector(0.0F);
            }
        }
        /// Adds a[r · step_row + i · step] · b[i, lanes] over all i.
        RW_INLINE void add_products(const float* a, std::int64_t step_row, std::int64_t step, const float* b,
                                    std::int64_t depth) {
            for (std::int64_t i = 0; i < depth; ++i, a += step, b += width) {
                vector row[V];
                RW_UNROLL
                for (int v = 0; v < V; ++v) row[v] = vector::load_aligned(b + v * lanes);
                RW_UNROLL
                for (int r = 0; r < R; ++r) {
                    const vector factor(a[r * step_row]);
                    RW_UNROLL
                    for (int v = 0; v < V; ++v) of[r][v] = multiply_add<A>(factor, row[v], of[r][v]);
                }
            }
        }
    };

    /// Calls block.template operator()<R>(first) for blocks of R rows, with smaller ones at the end.
    template <class Block>
    static RW_INLINE void for_each_block(std::int64_t rows, const Block& block) {
        constexpr int full = prefill_rows<A>;
        std::int64_t at = 0;
        for (; at + full <= rows; at += full) block.template operator()<full>(at);
        if constexpr (full > 4) {
            if (rows - at >= 4) block.template operator()<4>(at), at += 4;
        }
        if (rows - at >= 2) block.template operator()<2>(at), at += 2;
        if (rows - at >= 1) block.template operator()<1>(at);
    }

    /// Computes scores and updates row_max.
    static RW_INLINE void score(const query_state& state, const keys& tile, vector (&row_max)[V]) {
        for_each_block(
            tile.count, [&]<int R>(std::int64_t first) __attribute__((always_inline)) {
                sums<R> s;
                s.add_products(tile.k.data + first * tile.k.stride, tile.k.stride, 1, state.q, state.depth);
                if (first + R > tile.unmasked) mask(state, first, s);
                RW_UNROLL
                for (int r = 0; r < R; ++r) {
                    RW_UNROLL
                    for (int v = 0; v < V; ++v) {
                        s.of[r][v].store_aligned(state.scores + (first + r) * width + v * lanes);
                        row_max[v] = xsimd::max(row_max[v], s.of[r][v]);
                    }
                }
            });
    }
    template <int R>
    static RW_INLINE void mask(const query_state& state, std::int64_t first, sums<R>& s) {
        const vector never(-__builtin_inff());
        for (int v = 0; v < V; ++v) {
            const vector visible = vector::load_aligned(state.visible + v * lanes);
            RW_UNROLL
            for (int r = 0; r < R; ++r)
                s.of[r][v] = xsimd::select(vector(static_cast<float>(first + r)) < visible, s.of[r][v], never);
        }
    }

    /// Replaces scores by e^(score − row_max) and adds them to row_sum.
    static RW_INLINE void softmax_weights(const query_state& state, std::int64_t count, const vector (&row_max)[V],
                                          vector (&row_sum)[V]) {
        for (std::int64_t i = 0; i < count; ++i) {
            float* const row = state.scores + i * width;
            RW_UNROLL
            for (int v = 0; v < V; ++v) {
                const vector weight = xsimd::exp(vector::load_aligned(row + v * lanes) - row_max[v]);
                weight.store_aligned(row + v * lanes);
                row_sum[v] += weight;
            }
        }
    }

    /// Adds a tile to the results of the queries.
    static void add(const query_state& state, const keys& tile) {
        vector row_max[V], row_sum[V], rescale[V];
        for (int v = 0; v < V; ++v)
            row_max[v] = vector::load_aligned(state.row_max + v * lanes), row_sum[v] = vector(0.0F);
        score(state, tile, row_max);
        softmax_weights(state, tile.count, row_max, row_sum);
        for (int v = 0; v < V; ++v) {
            rescale[v] = xsimd::exp(vector::load_aligned(state.row_max + v * lanes) - row_max[v]);
            row_max[v].store_aligned(state.row_max + v * lanes);
            const vector before = vector::load_aligned(state.row_sum + v * lanes);
            multiply_add<A>(before, rescale[v], row_sum[v]).store_aligned(state.row_sum + v * lanes);
        }
        for_each_block(
            state.depth, [&]<int R>(std::int64_t first) __attribute__((always_inline)) {
                sums<R> s;
                s.add_products(tile.v.data + first, 1, tile.v.stride, state.scores, tile.count);
                RW_UNROLL
                for (int r = 0; r < R; ++r) {
                    RW_UNROLL
                    for (int v = 0; v < V; ++v) {
                        float* const out = state.out + (first + r) * width + v * lanes;
                        multiply_add<A>(vector::load_aligned(out), rescale[v], s.of[r][v]).store_aligned(out);
                    }
                }
            });
    }
};

}  // namespace ropewalk::llama::cpu::detail
