// Loops over the heads of one token: all that depends on the element type and the layout.
#pragma once

#include "ropewalk/cpu/rotate_kernel.hpp"
#include "ropewalk/cpu/simd/block.hpp"

namespace ropewalk::cpu::detail {

template <class T, class L, class A>
struct head_loops {
    using main_block = block<T, L, A>;
    using narrow_block = typename main_block::next;
    static constexpr std::int64_t floats_per_pair = row_floats<T, L>;
    /// The width of most models. As a constant it takes 0.90 to 0.97 of the time in cache.
    static constexpr std::int64_t usual_pairs = 64;
    /// Limit of the blocks whose cosines and sines stay in registers while the heads pass.
    static constexpr int max_held = (is_avx512<A> ? 16 : 8) / main_block::registers;
    /// Blocks of an unrolled loop over a head: 64 pairs, the width of most models, at most 8 blocks.
    static constexpr int unrolled = main_block::pairs < 8 ? 8 : static_cast<int>(usual_pairs / main_block::pairs);

    static void by_columns(std::int64_t pairs, const float* row, const head_span& heads, prefetch_range prefetch) {
        std::int64_t begin = 0;
        if constexpr (splits_lines) {
            if (half_a_register_off(pairs, heads)) {
                held_columns<narrow_block, 1>(0, pairs, row, heads, prefetch);
                begin = narrow_block::pairs;
            }
        }
        if (begin == 0 && pairs == usual_pairs)
            return columns<main_block, max_held>(0, usual_pairs, row, heads, prefetch);
        columns_from(begin, pairs, row, heads, prefetch);
    }

    static void by_heads(std::int64_t pairs, const float* row, const head_span& heads, prefetch_range prefetch) {
        if constexpr (splits_lines) {
            if (heads.count == 1 && half_a_register_off(pairs, heads)) return by_columns(pairs, row, heads, prefetch);
        }
        if (pairs == usual_pairs) {
            whole_heads<unrolled>(usual_pairs, row, heads, prefetch);
            return;
        }
        const std::int64_t rotated = pairs > usual_pairs ? whole_heads<unrolled>(pairs, row, heads, prefetch)
                                                         : whole_heads<1>(pairs, row, heads, prefetch);
        if (rotated < pairs) columns_from(rotated, pairs, row, heads, {});
    }

    static void arrange(std::int64_t pairs, float* to_cos, float* to_sin, const float* cos, const float* sin) {
        arrange_blocks<main_block>(0, pairs, to_cos, to_sin, cos, sin);
    }

private:
    /// True where half of the accesses of 32 bytes to memory of malloc() lie in two cache lines, and a narrower block
    /// first helps: 40 heads of 64 pairs in L1 take 0.5 of the time. The other types and layouts lose less.
    static constexpr bool splits_lines =
        std::is_same_v<T, float> && std::is_same_v<L, half_split> && main_block::pairs == 8;

    static RW_INLINE bool half_a_register_off(std::int64_t pairs, const head_span& heads) {
        constexpr std::uintptr_t half = 16, whole = 2 * half;
        const auto in = reinterpret_cast<std::uintptr_t>(heads.in), out = reinterpret_cast<std::uintptr_t>(heads.out);
        const auto strides = static_cast<std::uintptr_t>(heads.in_stride | heads.out_stride);
        return in % whole == half && out % whole == half && strides % whole == 0 && pairs % main_block::pairs == 0;
    }

    static RW_INLINE const float* cosines(const float* row, std::int64_t pair) { return row + floats_per_pair * pair; }
    static RW_INLINE const float* sines(const float* row, std::int64_t pair, std::int64_t pairs) {
        return row + padded_row(pairs) + floats_per_pair * pair;
    }

    /// Rotates N blocks of all heads from `pair` on.
    template <class B, int N>
    static RW_INLINE void held_columns(std::int64_t pair, std::int64_t pairs, const float* row, const head_span& heads,
                                       prefetch_range prefetch) {
        typename B::values values[static_cast<std::size_t>(N)];
        RW_UNROLL
        for (int i = 0; i < N; ++i) {
            values[i] = B::values::load(cosines(row, pair + i * B::pairs), sines(row, pair + i * B::pairs, pairs));
            values[i].pin();
        }
        constexpr std::int64_t bytes = static_cast<std::int64_t>(sizeof(T));
        const std::int64_t start = L::first(pair, pairs) * bytes, stride = L::first(B::pairs, pairs);
        const std::byte* in = heads.in + start;
        std::byte* out = heads.out + start;
        const std::int64_t in_stride = heads.in_stride, out_stride = heads.out_stride;
        for (std::int64_t head = heads.count; head > 0; --head, in += in_stride, out += out_stride) {
            const T* const from = reinterpret_cast<const T*>(in);
            T* const to = reinterpret_cast<T*>(out);
            RW_UNROLL
            for (int i = 0; i < N; ++i) {
                if (i * stride * bytes % tuning::line_bytes == 0) {
                    RW_PREFETCH_L1(in + i * stride * bytes + prefetch.ahead);
                    if constexpr (std::is_same_v<L, half_split>)
                        RW_PREFETCH_L1(in + (i * stride + pairs) * bytes + prefetch.ahead);
                }
                B::apply(values[i], from + i * stride, to + i * stride, pairs);
            }
        }
    }

    /// All heads from `pair` on: N blocks at once as long as they fit, then fewer, then narrower ones.
    template <class B, int N>
    static RW_INLINE void columns(std::int64_t pair, std::int64_t pairs, const float* row, const head_span& heads,
                                  prefetch_range prefetch) {
        for (; pair + N * B::pairs <= pairs; pair += N * B::pairs)
            held_columns<B, N>(pair, pairs, row, heads, prefetch);
        if (pair == pairs) return;
        if constexpr (N > 1) {
            columns<B, (N > 4 ? 4 : N - 1)>(pair, pairs, row, heads, prefetch);
        } else if constexpr (B::pairs > 1) {
            columns<typename B::next, 1>(pair, pairs, row, heads, prefetch);
        }
    }

    /// columns() for any width, once per kernel.
    [[gnu::noinline]] static void columns_from(std::int64_t pair, std::int64_t pairs, const float* row,
                                               const head_span& heads, prefetch_range prefetch) {
        columns<main_block, max_held>(pair, pairs, row, heads, prefetch);
    }

    /// Rotates groups of N blocks of head after head, as many as fit. Returns the pairs rotated.
    template <int N>
    static RW_INLINE std::int64_t whole_heads(std::int64_t pairs, const float* row, const head_span& heads,
                                              prefetch_range prefetch) {
        constexpr std::int64_t width = N * main_block::pairs;
        const std::int64_t groups = pairs / width;
        if (groups == 0) return 0;
        const std::int64_t in_stride = heads.in_stride, out_stride = heads.out_stride;
        const std::int64_t stride = L::first(main_block::pairs, pairs);
        const std::byte* in = heads.in;
        std::byte* out = heads.out;
        for (std::int64_t head = heads.count; head > 0; --head, in += in_stride, out += out_stride) {
            for (std::int64_t line = 0; line < prefetch.length; line += tuning::line_bytes)
                RW_PREFETCH_L2(in + prefetch.ahead + line);
            const T* from = reinterpret_cast<const T*>(in);
            T* to = reinterpret_cast<T*>(out);
            const float* cos = cosines(row, 0);
            const float* sin = sines(row, 0, pairs);
            std::int64_t left = groups;
            do {
                RW_UNROLL
                for (int i = 0; i < N; ++i) {
                    const std::int64_t at = i * main_block::pairs;
                    auto values = main_block::values::load(cos + floats_per_pair * at, sin + floats_per_pair * at);
                    // Conversion keeps the processor busier than loads: for 16 bits two memory operands cost less.
                    if constexpr (std::is_same_v<T, float>) values.pin();
                    main_block::apply(values, from + i * stride, to + i * stride, pairs);
                }
                from += N * stride, to += N * stride;
                cos += floats_per_pair * width, sin += floats_per_pair * width;
            } while (--left > 0);
        }
        return groups * width;
    }

    template <class B>
    static RW_INLINE void arrange_blocks(std::int64_t pair, std::int64_t pairs, float* to_cos, float* to_sin,
                                         const float* cos, const float* sin) {
        for (; pair + B::pairs <= pairs; pair += B::pairs)
            B::arrange(to_cos + floats_per_pair * pair, to_sin + floats_per_pair * pair, cos + pair, sin + pair);
        if constexpr (B::pairs > 1) {
            if (pair < pairs) arrange_blocks<typename B::next>(pair, pairs, to_cos, to_sin, cos, sin);
        }
    }
};

}  // namespace ropewalk::cpu::detail
