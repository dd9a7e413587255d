// Loops that the traversals share: the cos_sin rows of a token, and the heads of a token.
#pragma once

#include <cstring>

#include "ropewalk/cpu/cos_sin_row.hpp"
#include "ropewalk/cpu/simd/block.hpp"

namespace ropewalk::cpu::detail {

/// The cosines and sines of one token, in block order.
struct cos_sin_row {
    const float* cos;
    const float* sin;

    cos_sin_row(const float* row, std::int64_t pairs) : cos(row), sin(row + padded_row(pairs)) {}
};

/// Calls f.template operator()<Block>(pair) for each block of the pairs [pair, pairs): B as long as it fits, then
/// narrower ones. Unrolls where `pairs` is a constant.
template <class B, class F>
RW_INLINE void for_each_block(std::int64_t pair, std::int64_t pairs, const F& f) {
    const std::int64_t full = pair + (pairs - pair) / B::pairs * B::pairs;
    RW_UNROLL
    for (; pair < full; pair += B::pairs) f.template operator()<B>(pair);
    if constexpr (B::pairs > 1) {
        if (full < pairs) for_each_block<typename B::next>(full, pairs, f);
    }
}

/// The loops of one kernel: element type, layout, architecture, and the number of pairs where it is a constant (0:
/// any).
template <class T, class L, class A, std::int64_t Pairs>
struct loops {
    static constexpr std::int64_t floats_per_pair = row_floats<T, L>;
    using main_block = block<T, L, A>;
    /// Limit of the blocks whose cosines and sines stay in registers while the heads pass.
    static constexpr int max_held = (is_avx512<A> ? 16 : 8) / main_block::registers;
    static constexpr int held = Pairs >= main_block::pairs && Pairs / main_block::pairs < max_held
                                    ? static_cast<int>(Pairs / main_block::pairs)
                                    : max_held;
    static constexpr bool whole_row_held = Pairs != 0 && held * main_block::pairs == Pairs;

    static RW_INLINE std::int64_t pairs(const rotate_params& params) { return Pairs != 0 ? Pairs : params.pairs; }

    // --- cos_sin rows -----------------------------------------------------------------------------------------------

    /// Floats from the row of the queries of a token to that of its keys.
    static RW_INLINE std::int64_t key_row(const rotate_params& params) {
        return params.has_magnitude ? 2 * padded_row(params.pairs) : 0;
    }

    /// Writes the rows of one token, and those of its keys where magnitudes differ: [q cos, q sin, k cos, k sin].
    /// `scratch` holds them in pair order meanwhile.
    static void make_rows(const rotate_params& params, std::int64_t batch_row, std::int64_t token, float* rows,
                          float* scratch) {
        const std::int64_t stride = padded_row(params.pairs);
        float* const cos = row_is_natural<T, L> ? rows : scratch;
        float* const sin = cos + stride;
        float* const k_cos = cos + 2 * stride;
        float* const k_sin = cos + 3 * stride;
        if (params.table.exists()) {
            fill_from_table<L>(params, batch_row, token, cos, sin);
        } else {
            token_position target = params.target.positions.at(batch_row, token), source{};
            if (params.source.steps != nullptr) source = params.source.positions.at(batch_row, token);
            fill_cos_sin<A, false>(params, target, source, 0, pairs(params), cos, sin);
            if (params.has_magnitude) {
                target.whole[0] -= static_cast<std::uint64_t>(params.target.centre);
                source.whole[0] -= static_cast<std::uint64_t>(params.source.centre);
                apply_magnitude<A>(params, target, source, 0, pairs(params), cos, sin, k_cos, k_sin);
            }
        }
        if constexpr (!row_is_natural<T, L>) {
            arrange_row(pairs(params), rows, rows + stride, cos, sin);
            if (params.has_magnitude) arrange_row(pairs(params), rows + 2 * stride, rows + 3 * stride, k_cos, k_sin);
        }
    }

    /// Calls rotate_tokens(rows, batch_row, token, count, in, out) for the queries, then the keys, of the tokens
    /// [begin, end), tile by tile. Each row is made just before the queries that use it, so that memory stays busy,
    /// unless a tile of `rows_at_once` is wanted.
    template <class F>
    static RW_INLINE void for_each_tile(const rotate_params& params, std::int64_t begin, std::int64_t end,
                                        float* scratch, bool rows_at_once, const F& rotate_tokens) {
        const std::int64_t stride = params.row_stride(), tokens = params.tokens(), tile = params.loop.tile;
        float* const rows = scratch + first_row(params);
        const bool one_batch_row = params.batch() == 1;
        for (std::int64_t at = begin; at < end;) {
            const std::int64_t batch_row = one_batch_row ? 0 : at / tokens, token = at - batch_row * tokens;
            std::int64_t count = tile < end - at ? tile : end - at;
            if (count > tokens - token) count = tokens - token;
            const std::int64_t step = rows_at_once ? count : 1;
            for (std::int64_t i = 0; i < count; i += step) {
                for (std::int64_t j = i; j < i + step; ++j)
                    make_rows(params, batch_row, token + j, rows + stride * j, scratch);
                if (params.q_in.exists())
                    rotate_tokens(rows + stride * i, batch_row, token + i, step, params.q_in, params.q_out);
            }
            if (params.k_in.exists())
                rotate_tokens(rows + key_row(params), batch_row, token, count, params.k_in, params.k_out);
            at += count;
        }
    }

    // --- heads ------------------------------------------------------------------------------------------------------

    /// Strides of the heads and tokens of one tensor, by value: a store must not make the compiler read them again.
    struct strides {
        std::int64_t heads, in_head, out_head, in_token, out_token;
    };

    /// The heads of one token of one tensor.
    struct token_heads {
        const T* in;
        T* out;
        strides step;
        std::int64_t head_dim;

        token_heads(const tensor& from, const tensor& to, std::int64_t batch_row, std::int64_t token)
            : in(static_cast<const T*>(from.data) + batch_row * from.stride_batch + token * from.stride_token),
              out(static_cast<T*>(to.data) + batch_row * to.stride_batch + token * to.stride_token),
              step{from.heads, from.stride_head, to.stride_head, from.stride_token, to.stride_token},
              head_dim(from.head_dim) {}

        /// Advances to the rotary part. Out of place, copies the rest of the heads of `count` tokens first.
        RW_INLINE void enter_rotary_part(const rotate_params& params, std::int64_t count) {
            if (in != out && 2 * pairs(params) < head_dim) copy_rest(params, count);
            in += params.rotary_offset;
            out += params.rotary_offset;
        }

    private:
        void copy_rest(const rotate_params& params, std::int64_t count) const {
            const std::int64_t begin = params.rotary_offset, end = begin + 2 * pairs(params);
            for (std::int64_t head = 0; head < step.heads; ++head) {
                for (std::int64_t token = 0; token < count; ++token) {
                    const T* const from = in + head * step.in_head + token * step.in_token;
                    T* const to = out + head * step.out_head + token * step.out_token;
                    if (begin > 0) std::memcpy(to, from, static_cast<std::size_t>(begin) * sizeof(T));
                    if (end < head_dim)
                        std::memcpy(to + end, from + end, static_cast<std::size_t>(head_dim - end) * sizeof(T));
                }
            }
        }
    };

    /// Prefetches one line of a later head, to hide the TLB miss. The hardware prefetches the lines in between, and
    /// requests for each of them would take its buffers.
    static RW_INLINE void prefetch_l2(const T* in) {
        RW_PREFETCH_L2(reinterpret_cast<const char*>(in) + tuning::l2_prefetch_bytes);
    }

    static RW_INLINE void prefetch_l1(const T* in) {
        RW_PREFETCH_L1(reinterpret_cast<const char*>(in) + tuning::l1_prefetch_lines * tuning::line_bytes);
    }

    static RW_INLINE void rotate_head(std::int64_t pairs, cos_sin_row row, const T* in, T* out) {
        for_each_block<main_block>(
            0, pairs, [&]<class B>(std::int64_t pair) __attribute__((always_inline)) {
                const std::int64_t first = L::first(pair, pairs);
                auto values = B::values::load(row.cos + floats_per_pair * pair, row.sin + floats_per_pair * pair);
                // Conversion keeps the processor busier than loads: for 16 bits two memory operands cost less.
                if constexpr (std::is_same_v<T, float>) values.pin();
                B::apply(values, in + first, out + first, pairs);
            });
    }

    /// Rotates N blocks of all heads from `pair` on; their cosines and sines stay in registers.
    template <class B, int N>
    static RW_INLINE void rotate_columns(std::int64_t pairs, cos_sin_row row, std::int64_t pair, const T* in, T* out,
                                         const strides& step, bool from_l2) {
        typename B::values values[static_cast<std::size_t>(N)];
        RW_UNROLL
        for (int i = 0; i < N; ++i) {
            const std::int64_t at = floats_per_pair * (pair + i * B::pairs);
            values[i] = B::values::load(row.cos + at, row.sin + at);
            values[i].pin();
        }
        const std::int64_t start = L::first(pair, pairs), stride = L::first(B::pairs, pairs);
        in += start;
        out += start;
        for (std::int64_t head = 0; head < step.heads; ++head, in += step.in_head, out += step.out_head) {
            RW_UNROLL
            for (int i = 0; i < N; ++i) {
                if (from_l2 && i * stride * static_cast<std::int64_t>(sizeof(T)) % tuning::line_bytes == 0) {
                    prefetch_l1(in + i * stride);
                    if constexpr (std::is_same_v<L, half_split>) prefetch_l1(in + i * stride + pairs);
                }
                B::apply(values[i], in + i * stride, out + i * stride, pairs);
            }
        }
    }

    /// All heads of one token, the pairs in the outer loop.
    static RW_INLINE void rotate_by_columns(std::int64_t pairs, cos_sin_row row, const T* in, T* out,
                                            const strides& step, bool from_l2) {
        constexpr std::int64_t width = held * main_block::pairs;
        const std::int64_t full = pairs / width * width;
        for (std::int64_t pair = 0; pair < full; pair += width)
            rotate_columns<main_block, held>(pairs, row, pair, in, out, step, from_l2);
        for_each_block<main_block>(
            full, pairs, [&]<class B>(std::int64_t pair) __attribute__((always_inline)) {
                rotate_columns<B, 1>(pairs, row, pair, in, out, step, from_l2);
            });
    }

    /// All heads of one token in address order; each head reads the row again.
    static RW_INLINE void rotate_by_heads(std::int64_t pairs, cos_sin_row row, const T* in, T* out, const strides& step,
                                          bool from_memory) {
        for (std::int64_t head = 0; head < step.heads; ++head, in += step.in_head, out += step.out_head) {
            if (from_memory) prefetch_l2(in);
            rotate_head(pairs, row, in, out);
        }
    }

    /// All heads of one token. By columns where registers hold the whole row, since either loop order is address order
    /// then, and from L2; by heads elsewhere, since columns pass over the heads more than once.
    static RW_INLINE void rotate_token(std::int64_t pairs, cos_sin_row row, const T* in, T* out, const strides& step,
                                       footprint size) {
        if (whole_row_held || size == footprint::l2) {
            rotate_by_columns(pairs, row, in, out, step, size == footprint::l2);
        } else {
            rotate_by_heads(pairs, row, in, out, step, size == footprint::memory);
        }
    }

private:
    /// Brings cosines and sines into the order of the blocks.
    static RW_INLINE void arrange_row(std::int64_t pairs, float* to_cos, float* to_sin, const float* cos,
                                      const float* sin) {
        for_each_block<main_block>(
            0, pairs, [&]<class B>(std::int64_t pair) __attribute__((always_inline)) {
                B::arrange(to_cos + floats_per_pair * pair, to_sin + floats_per_pair * pair, cos + pair, sin + pair);
            });
    }
};

}  // namespace ropewalk::cpu::detail
