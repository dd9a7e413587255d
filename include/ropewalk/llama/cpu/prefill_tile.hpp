// Attention of many queries of a head at once. A register holds one element of as many queries as it has lanes, so that
// keys and values are used as they lie in the cache, element by element, and a maximum or a sum over keys never leaves
// its lane.
#pragma once

#include "ropewalk/llama/cpu/tile.hpp"

namespace ropewalk::llama::cpu::detail {

/// The maximum before the first key. Finite, so that its difference to another maximum is a number.
inline constexpr float no_score = -0x1.fffffep+127F;

/// Registers of queries a panel, and rows of keys, or elements of values, that are multiplied by them at once: sums,
/// queries and one factor fill the registers.
template <class A>
inline constexpr int panel_vectors = is_avx512<A> ? 2 : 3;
template <class A>
inline constexpr int panel_rows = is_avx512<A> ? 8 : 4;

/// What a panel of V registers of queries is and has come to.
template <class A>
struct panel_state {
    float* q = nullptr;      ///< [head_dim, V · lanes], scaled
    float* out = nullptr;    ///< [head_dim, V · lanes], not yet divided by the sums
    float* most = nullptr;   ///< [V · lanes], the greatest score
    float* sum = nullptr;    ///< [V · lanes], of e^(score − most)
    float* limit = nullptr;  ///< [V · lanes], keys of the tile that a query may look at, where masked
    std::int64_t head_dim = 0;
};

template <class A, int V>
struct panel {
    using vector = floats<A>;
    static constexpr std::int64_t lanes = lane_count<A>;
    static constexpr std::int64_t width = V * lanes;

    /// The keys of a tile. `scores` [keys, V · lanes] is room to work in.
    struct keys {
        tile<float> k, v;
        std::int64_t count;
        std::int64_t unmasked;  ///< keys that every query may look at
        float* scores;
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

    /// Calls block.template operator()<R>(first) for blocks of R rows, the last ones smaller.
    template <class Block>
    static RW_INLINE void for_each_block(std::int64_t rows, const Block& block) {
        constexpr int most = panel_rows<A>;
        std::int64_t at = 0;
        for (; at + most <= rows; at += most) block.template operator()<most>(at);
        if constexpr (most > 4) {
            if (rows - at >= 4) block.template operator()<4>(at), at += 4;
        }
        if (rows - at >= 2) block.template operator()<2>(at), at += 2;
        if (rows - at >= 1) block.template operator()<1>(at);
    }

    /// Queries times keys, and the greatest of each query.
    static RW_INLINE void score(const panel_state<A>& state, const keys& tile, vector (&most)[V]) {
        for_each_block(
            tile.count, [&]<int R>(std::int64_t first) __attribute__((always_inline)) {
                sums<R> s;
                s.add_products(tile.k.data + first * tile.k.stride, tile.k.stride, 1, state.q, state.head_dim);
                if (first + R > tile.unmasked) mask(state, first, s);
                RW_UNROLL
                for (int r = 0; r < R; ++r) {
                    RW_UNROLL
                    for (int v = 0; v < V; ++v) {
                        s.of[r][v].store_aligned(tile.scores + (first + r) * width + v * lanes);
                        most[v] = xsimd::max(most[v], s.of[r][v]);
                    }
                }
            });
    }
    template <int R>
    static RW_INLINE void mask(const panel_state<A>& state, std::int64_t first, sums<R>& s) {
        const vector never(-__builtin_inff());
        for (int v = 0; v < V; ++v) {
            const vector limit = vector::load_aligned(state.limit + v * lanes);
            RW_UNROLL
            for (int r = 0; r < R; ++r)
                s.of[r][v] = xsimd::select(vector(static_cast<float>(first + r)) < limit, s.of[r][v], never);
        }
    }

    /// Scores become weights.
    static RW_INLINE void weigh(const keys& tile, const vector (&most)[V], vector (&sum)[V]) {
        for (std::int64_t i = 0; i < tile.count; ++i) {
            float* const row = tile.scores + i * width;
            RW_UNROLL
            for (int v = 0; v < V; ++v) {
                const vector weight = xsimd::exp(vector::load_aligned(row + v * lanes) - most[v]);
                weight.store_aligned(row + v * lanes);
                sum[v] += weight;
            }
        }
    }

    /// Takes a tile into account.
    static void take(const panel_state<A>& state, const keys& tile) {
        vector most[V], sum[V], shrink[V];
        for (int v = 0; v < V; ++v) most[v] = vector::load_aligned(state.most + v * lanes), sum[v] = vector(0.0F);
        score(state, tile, most);
        weigh(tile, most, sum);
        for (int v = 0; v < V; ++v) {
            shrink[v] = xsimd::exp(vector::load_aligned(state.most + v * lanes) - most[v]);
            most[v].store_aligned(state.most + v * lanes);
            const vector before = vector::load_aligned(state.sum + v * lanes);
            multiply_add<A>(before, shrink[v], sum[v]).store_aligned(state.sum + v * lanes);
        }
        for_each_block(
            state.head_dim, [&]<int R>(std::int64_t first) __attribute__((always_inline)) {
                sums<R> s;
                s.add_products(tile.v.data + first, 1, tile.v.stride, tile.scores, tile.count);
                RW_UNROLL
                for (int r = 0; r < R; ++r) {
                    RW_UNROLL
                    for (int v = 0; v < V; ++v) {
                        float* const at = state.out + (first + r) * width + v * lanes;
                        multiply_add<A>(vector::load_aligned(at), shrink[v], s.of[r][v]).store_aligned(at);
                    }
                }
            });
    }
};

}  // namespace ropewalk::llama::cpu::detail
