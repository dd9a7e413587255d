// Attention of a few queries of a head, usually one, over a tile of keys: a stream of keys and values, each widened
// once for all queries. A register holds consecutive elements of a row.
#pragma once

#include "ropewalk/llama/cpu/simd.hpp"
#include "ropewalk/llama/cpu/tile.hpp"

namespace ropewalk::llama::cpu::detail {

/// R queries over tiles of T: query_state's q and out are [rows, width], row_max and row_sum [rows], scores
/// [4, tile_tokens].
template <class A, class T, int R>
struct decode_tile {
    using vector = floats<A>;
    static constexpr int lanes = static_cast<int>(lane_count<A>);
    static constexpr int keys_at_once = lanes / R;
    static_assert(R <= lanes);

    /// Prefetches rows that are read next. The hardware does not foresee a thread that alternates between keys and
    /// values.
    template <std::int64_t Elements>
    static RW_INLINE void prefetch(const T* next) {
        constexpr std::int64_t line = 64 / static_cast<std::int64_t>(sizeof(T));
        RW_UNROLL
        for (std::int64_t at = 0; at < Elements; at += line) prefetch_for_reading(next + at);
    }

    /// Returns the sum of the lanes of register i in lane i.
    static RW_INLINE vector sums_of_lanes(vector (&parts)[lanes]) {
        RW_UNROLL
        for (int left = lanes / 2; left > 0; left /= 2) {
            RW_UNROLL
            for (int i = 0; i < left; ++i)
                parts[i] = even_lanes<A>(parts[2 * i], parts[2 * i + 1]) + odd_lanes<A>(parts[2 * i], parts[2 * i + 1]);
        }
        return parts[0];
    }

    /// Computes the scores of keys_at_once keys. Keys after the last one repeat it.
    static RW_INLINE void score_block(const query_state& state, const float* q, const kv_tile<T>& keys,
                                      std::int64_t first, std::int64_t count) {
        const T* const next = keys.next + first * keys.stride;
        const T* row[keys_at_once];
        for (int k = 0; k < keys_at_once; ++k)
            row[k] = keys.data + (first + k < count ? first + k : count - 1) * keys.stride;
        vector parts[lanes];
        RW_UNROLL
        for (int i = 0; i < lanes; ++i) parts[i] = vector(0.0F);
        for (std::int64_t at = 0; at < state.depth; at += lanes) {
            prefetch<keys_at_once * lanes>(next + at * keys_at_once);
            vector query[R];
            RW_UNROLL
            for (int r = 0; r < R; ++r) query[r] = vector::load_aligned(q + r * state.width + at);
            RW_UNROLL
            for (int k = 0; k < keys_at_once; ++k) {
                const vector key = load_floats<A>(row[k] + at);
                RW_UNROLL
                for (int r = 0; r < R; ++r)
                    parts[r * keys_at_once + k] = multiply_add<A>(query[r], key, parts[r * keys_at_once + k]);
            }
        }
        alignas(64) float scores[lanes];
        sums_of_lanes(parts).store_aligned(scores);
        for (int r = 0; r < R; ++r) {
            for (int k = 0; k < keys_at_once; ++k)
                state.scores[r * tile_tokens + first + k] = scores[r * keys_at_once + k];
        }
    }

    /// Replaces the scores of one query by softmax weights, zero from `visible` keys on. Updates row_max and row_sum
    /// and returns the factor for earlier sums.
    static RW_INLINE float softmax_weights(float* scores, const float* key_scales, const float* value_scales,
                                           std::int64_t visible, float& row_max, float& row_sum) {
        constexpr std::int64_t line = 16;
        const float never = -__builtin_inff();
        for (std::int64_t i = 0; key_scales != nullptr && i < visible; ++i) scores[i] *= key_scales[i];
        for (std::int64_t i = visible; i < tile_tokens; ++i) scores[i] = never;
        const std::int64_t end = (visible + line - 1) / line * line;
        vector maximum(row_max), sum(0.0F);
        for (std::int64_t i = 0; i < end; i += lanes) maximum = xsimd::max(maximum, vector::load_aligned(scores + i));
        alignas(64) float parts[lanes];
        maximum.store_aligned(parts);
        const float before = row_max;
        for (int i = 0; i < lanes; ++i) row_max = parts[i] > row_max ? parts[i] : row_max;
        maximum = vector(row_max);
        for (std::int64_t i = 0; i < tile_tokens; i += lanes) {
            const vector weight = xsimd::exp(vector::load_aligned(scores + i) - maximum);
            weight.store_aligned(scores + i);
            sum += weight;
        }
        for (std::int64_t i = 0; value_scales != nullptr && i < visible; ++i) scores[i] *= value_scales[i];
        vector(before - row_max).store_aligned(parts);
        xsimd::exp(vector::load_aligned(parts)).store_aligned(parts);
        const float rescale = parts[0];
        row_sum = row_sum * rescale + sum_of_lanes<A>(sum);
        return rescale;
    }

    /// Adds the weighted values to N registers of `out`.
    template <int N>
    static RW_INLINE void add_values(const query_state& state, float* out, const float (&rescale)[R],
                                     const kv_tile<T>& values, std::int64_t at, std::int64_t count) {
        vector sums[R][N];
        RW_UNROLL
        for (int r = 0; r < R; ++r) {
            RW_UNROLL
            for (int n = 0; n < N; ++n) sums[r][n] = vector(0.0F);
        }
        const T *row = values.data + at, *next = values.next + at;
        for (std::int64_t i = 0; i < count; ++i, row += values.stride, next += values.stride) {
            prefetch<N * lanes>(next);
            vector value[N];
            RW_UNROLL
            for (int n = 0; n < N; ++n) value[n] = load_floats<A>(row + n * lanes);
            RW_UNROLL
            for (int r = 0; r < R; ++r) {
                const vector weight(state.scores[r * tile_tokens + i]);
                RW_UNROLL
                for (int n = 0; n < N; ++n) sums[r][n] = multiply_add<A>(weight, value[n], sums[r][n]);
            }
        }
        RW_UNROLL
        for (int r = 0; r < R; ++r) {
            RW_UNROLL
            for (int n = 0; n < N; ++n) {
                float* const to = out + r * state.width + at + n * lanes;
                multiply_add<A>(vector::load_aligned(to), vector(rescale[r]), sums[r][n]).store_aligned(to);
            }
        }
    }

    /// Adds a tile of `count` keys, of which query r sees visible[r], to the results of R queries from `first_row` on.
    static void add(const query_state& state, std::int64_t first_row, const kv_tile<T>& keys, const kv_tile<T>& values,
                    std::int64_t count, const std::int64_t (&visible)[R]) {
        for (std::int64_t first = 0; first < count; first += keys_at_once)
            score_block(state, state.q + first_row * state.width, keys, first, count);
        float rescale[R];
        for (int r = 0; r < R; ++r)
            rescale[r] = softmax_weights(state.scores + r * tile_tokens, keys.scales, values.scales, visible[r],
                                         state.row_max[first_row + r], state.row_sum[first_row + r]);
        float* const out = state.out + first_row * state.width;
        constexpr int at_once = 8 / R * lanes;
        std::int64_t at = 0;
        for (; at + at_once <= state.depth; at += at_once) add_values<8 / R>(state, out, rescale, values, at, count);
        for (; at < state.depth; at += lanes) add_values<1>(state, out, rescale, values, at, count);
    }
};

}  // namespace ropewalk::llama::cpu::detail
