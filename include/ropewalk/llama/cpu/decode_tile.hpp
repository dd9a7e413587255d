// Attention of few queries of a head, of one as a rule: a stream of keys and values, each widened once for all of them.
// A register holds consecutive elements of a row.
#pragma once

#include "ropewalk/llama/cpu/prefill_tile.hpp"
#include "ropewalk/llama/cpu/simd.hpp"

namespace ropewalk::llama::cpu::detail {

/// What few queries are and have come to. Rows are padded_width() apart.
struct strip_state {
    float* q = nullptr;       ///< [rows, width], scaled, zeros behind head_dim
    float* out = nullptr;     ///< [rows, width], not yet divided by the sums
    float* most = nullptr;    ///< [rows]
    float* sum = nullptr;     ///< [rows]
    float* scores = nullptr;  ///< [4, tile_tokens], room to work in
    std::int64_t width = 0;
    std::int64_t used = 0;  ///< elements that a row of keys has, whole registers
};

/// R queries over tiles of T.
template <class A, class T, int R>
struct strip {
    using vector = floats<A>;
    static constexpr int lanes = static_cast<int>(lane_count<A>);
    static constexpr int keys_at_once = lanes / R;
    static_assert(R <= lanes);

    /// Asks for what is read next while this is read: the processor does not foresee that a thread goes back and forth
    /// between keys and values.
    template <std::int64_t Elements>
    static RW_INLINE void ask_for(const T* next) {
        constexpr std::int64_t line = 64 / static_cast<std::int64_t>(sizeof(T));
        RW_UNROLL
        for (std::int64_t at = 0; at < Elements; at += line) ask_for_line(next + at);
    }

    /// The sum of the lanes of register i in lane i.
    static RW_INLINE vector sums_of_lanes(vector (&parts)[lanes]) {
        RW_UNROLL
        for (int left = lanes / 2; left > 0; left /= 2) {
            RW_UNROLL
            for (int i = 0; i < left; ++i)
                parts[i] = ropewalk::cpu::detail::even_lanes<A>(parts[2 * i], parts[2 * i + 1]) +
                           ropewalk::cpu::detail::odd_lanes<A>(parts[2 * i], parts[2 * i + 1]);
        }
        return parts[0];
    }

    /// Scores of keys_at_once keys, those behind the last one repeat it.
    static RW_INLINE void score_block(const strip_state& state, const float* q, const tile<T>& keys, std::int64_t first,
                                      std::int64_t count) {
        const T* const next = keys.next + first * keys.stride;
        const T* row[keys_at_once];
        for (int k = 0; k < keys_at_once; ++k)
            row[k] = keys.data + (first + k < count ? first + k : count - 1) * keys.stride;
        vector parts[lanes];
        RW_UNROLL
        for (int i = 0; i < lanes; ++i) parts[i] = vector(0.0F);
        for (std::int64_t at = 0; at < state.used; at += lanes) {
            ask_for<keys_at_once * lanes>(next + at * keys_at_once);
            vector query[R];
            RW_UNROLL
            for (int r = 0; r < R; ++r) query[r] = vector::load_aligned(q + r * state.width + at);
            RW_UNROLL
            for (int k = 0; k < keys_at_once; ++k) {
                const vector key = load_cached<A>(row[k] + at);
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

    /// Scores of one query become weights, zero from `visible` keys on. Returns what earlier sums shrink by.
    static RW_INLINE float weigh(float* scores, const float* key_scales, const float* value_scales,
                                 std::int64_t visible, float& greatest, float& total) {
        constexpr std::int64_t line = 16;
        const float never = -__builtin_inff();
        for (std::int64_t i = 0; key_scales != nullptr && i < visible; ++i) scores[i] *= key_scales[i];
        for (std::int64_t i = visible; i < tile_tokens; ++i) scores[i] = never;
        const std::int64_t end = (visible + line - 1) / line * line;
        vector most(greatest), sum(0.0F);
        for (std::int64_t i = 0; i < end; i += lanes) most = xsimd::max(most, vector::load_aligned(scores + i));
        alignas(64) float parts[lanes];
        most.store_aligned(parts);
        const float before = greatest;
        for (int i = 0; i < lanes; ++i) greatest = parts[i] > greatest ? parts[i] : greatest;
        most = vector(greatest);
        for (std::int64_t i = 0; i < tile_tokens; i += lanes) {
            const vector weight = xsimd::exp(vector::load_aligned(scores + i) - most);
            weight.store_aligned(scores + i);
            sum += weight;
        }
        for (std::int64_t i = 0; value_scales != nullptr && i < visible; ++i) scores[i] *= value_scales[i];
        vector(before - greatest).store_aligned(parts);
        xsimd::exp(vector::load_aligned(parts)).store_aligned(parts);
        const float shrink = parts[0];
        total = total * shrink + sum_of_lanes<A>(sum);
        return shrink;
    }

    /// N registers of the weighted sum of values.
    template <int N>
    static RW_INLINE void add_values(const strip_state& state, float* out, const float (&shrink)[R],
                                     const tile<T>& values, std::int64_t at, std::int64_t count) {
        vector sums[R][N];
        RW_UNROLL
        for (int r = 0; r < R; ++r) {
            RW_UNROLL
            for (int n = 0; n < N; ++n) sums[r][n] = vector(0.0F);
        }
        const T *row = values.data + at, *next = values.next + at;
        for (std::int64_t i = 0; i < count; ++i, row += values.stride, next += values.stride) {
            ask_for<N * lanes>(next);
            vector value[N];
            RW_UNROLL
            for (int n = 0; n < N; ++n) value[n] = load_cached<A>(row + n * lanes);
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
                multiply_add<A>(vector::load_aligned(to), vector(shrink[r]), sums[r][n]).store_aligned(to);
            }
        }
    }

    /// Takes a tile of `count` keys into account, of which query r may look at visible[r].
    static void take(const strip_state& state, std::int64_t first_row, const tile<T>& keys, const tile<T>& values,
                     std::int64_t count, const std::int64_t (&visible)[R]) {
        for (std::int64_t first = 0; first < count; first += keys_at_once)
            score_block(state, state.q + first_row * state.width, keys, first, count);
        float shrink[R];
        for (int r = 0; r < R; ++r)
            shrink[r] = weigh(state.scores + r * tile_tokens, keys.scales, values.scales, visible[r],
                              state.most[first_row + r], state.sum[first_row + r]);
        float* const out = state.out + first_row * state.width;
        constexpr int at_once = 8 / R * lanes;
        std::int64_t at = 0;
        for (; at + at_once <= state.used; at += at_once) add_values<8 / R>(state, out, shrink, values, at, count);
        for (; at < state.used; at += lanes) add_values<1>(state, out, shrink, values, at, count);
    }
};

}  // namespace ropewalk::llama::cpu::detail
