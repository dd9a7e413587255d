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
    const std::int64_t full = pair + (pairs - pair) / B::pairs * B::pairs;
    RW_UNROLL
    for (; pair < full; pair += B::pairs) f.template operator()<B>(pair);
    if constexpr (B::pairs > 1) {
        if (full < pairs) for_each_block<typename B::next>(full, pairs, f);
    }
}

/// Puts cosines and sines into the order of the blocks.
template <class T, class L, class A>
RW_INLINE void arrange_row(std::int64_t pairs, float* c, float* s, const float* cos, const float* sin) {
    constexpr std::int64_t n = row_floats<T, L>;
    for_each_block<block<T, L, A>>(
        0, pairs, [&]<class B>(std::int64_t pair) __attribute__((always_inline)) {
            B::arrange(c + n * pair, s + n * pair, cos + pair, sin + pair);
        });
}

/// One kernel: element type, layout, architecture, and the number of pairs where it is a constant (0: any).
template <class T, class L, class A, std::int64_t Pairs>
struct rotate_kernel {
    static constexpr std::int64_t n = row_floats<T, L>;
    using main_block = block<T, L, A>;
    /// Blocks whose cosines and sines are held in registers while the heads go by.
    static constexpr int most = (is_avx512<A> ? 16 : 8) / main_block::registers;
    static constexpr int chunk = Pairs >= main_block::pairs && Pairs / main_block::pairs < most
                                     ? static_cast<int>(Pairs / main_block::pairs)
                                     : most;
    static constexpr bool whole_row_held = Pairs != 0 && chunk * main_block::pairs == Pairs;

    /// How far ahead of the heads that come from memory the next ones are announced, where the row is not held: a page,
    /// which is as far as the processor itself foresees.
    static constexpr std::int64_t bytes_ahead = 4096;

    /// Heads that share the rows of a tile.
    static constexpr std::int64_t heads_together = 4;

    /// What the loops over tokens and heads need, by value: a store to memory must not make the compiler read it again.
    struct strides {
        std::int64_t heads, in_head, out_head, in_token, out_token;
    };

    static RW_INLINE std::int64_t pairs(const job& work) { return Pairs != 0 ? Pairs : work.pairs; }

    /// Copies what does not turn.
    static RW_INLINE void pass_through(const job& work, std::int64_t head_dim, std::int64_t count, const T* in, T* out,
                                       const strides& step) {
        const std::int64_t begin = work.rotary_offset, end = begin + 2 * pairs(work);
        for (std::int64_t head = 0; head < step.heads; ++head) {
            for (std::int64_t token = 0; token < count; ++token) {
                const T* source = in + head * step.in_head + token * step.in_token;
                T* target = out + head * step.out_head + token * step.out_token;
                if (begin > 0) std::memcpy(target, source, static_cast<std::size_t>(begin) * sizeof(T));
                if (end < head_dim)
                    std::memcpy(target + end, source + end, static_cast<std::size_t>(head_dim - end) * sizeof(T));
            }
        }
    }

    /// Asks for one line of a later head, whose page is looked up meanwhile. The lines in between come by themselves;
    /// requests for each of them would take the buffers in which loads wait.
    static RW_INLINE void announce(const T* in) { RW_PREFETCH_L2(reinterpret_cast<const char*>(in) + bytes_ahead); }

    /// From the second cache to the first, sixteen lines ahead. Measured, 16 tokens, AVX-512 and AVX2: f32 takes 0.96
    /// and 0.94 of the time, f16 1.0 and 0.93, bf16 0.99. From the third cache the same costs up to 0.2.
    static RW_INLINE void fetch(const T* in) { RW_PREFETCH_L1(reinterpret_cast<const char*>(in) + 16 * line_bytes); }

    static RW_INLINE void turn_head(std::int64_t half, row r, const T* in, T* out) {
        for_each_block<main_block>(
            0, half, [&]<class B>(std::int64_t pair) __attribute__((always_inline)) {
                const std::int64_t at = L::first(pair, half);
                auto turn = B::turn::load(r.c + n * pair, r.s + n * pair);
                // Converting 16 bits keeps the processor busier than loading does: twice as memory operands costs less.
                if constexpr (std::is_same_v<T, float>) turn.pin();
                B::apply(turn, in + at, out + at, half);
            });
    }

    /// The blocks [pair, pair + N blocks) of all heads, their cosines and sines held in registers.
    template <class B, int N>
    static RW_INLINE void turn_chunk(std::int64_t half, row r, std::int64_t pair, const T* in, T* out,
                                     const strides& step, bool from_l2) {
        typename B::turn turns[static_cast<std::size_t>(N)];
        RW_UNROLL
        for (int i = 0; i < N; ++i) {
            turns[i] = B::turn::load(r.c + n * (pair + i * B::pairs), r.s + n * (pair + i * B::pairs));
            turns[i].pin();
        }
        const std::int64_t start = L::first(pair, half), stride = L::first(B::pairs, half);
        in += start;
        out += start;
        for (std::int64_t head = 0; head < step.heads; ++head, in += step.in_head, out += step.out_head) {
            RW_UNROLL
            for (int i = 0; i < N; ++i) {
                if (from_l2 && i * stride * static_cast<std::int64_t>(sizeof(T)) % line_bytes == 0) {
                    fetch(in + i * stride);
                    if constexpr (std::is_same_v<L, half_split>) fetch(in + i * stride + half);
                }
                B::apply(turns[i], in + i * stride, out + i * stride, half);
            }
        }
    }

    /// All heads of one token, the pairs outside.
    static RW_INLINE void turn_token_by_chunks(std::int64_t half, row r, const T* in, T* out, const strides& step,
                                               bool from_l2) {
        const std::int64_t chunked = half / (chunk * main_block::pairs) * (chunk * main_block::pairs);
        for (std::int64_t pair = 0; pair < chunked; pair += chunk * main_block::pairs) {
            turn_chunk<main_block, chunk>(half, r, pair, in, out, step, from_l2);
        }
        for_each_block<main_block>(
            chunked, half, [&]<class B>(std::int64_t at) __attribute__((always_inline)) {
                turn_chunk<B, 1>(half, r, at, in, out, step, from_l2);
            });
    }

    /// All heads of one token in the order of their addresses, each row read again for every head.
    static RW_INLINE void turn_token_by_heads(std::int64_t half, row r, const T* in, T* out, const strides& step,
                                              bool from_memory) {
        for (std::int64_t head = 0; head < step.heads; ++head, in += step.in_head, out += step.out_head) {
            if (from_memory) announce(in);
            turn_head(half, r, in, out);
        }
    }

    /// All heads of `count` tokens, a few heads at a time, where the tokens of a head are neighbours in memory. One
    /// head alone reads as many lines of rows as of its own; many are as many streams, whose lines compete for places
    /// in the first cache where the distance of the heads is a power of two. Measured, 4096 tokens of f32: one at a
    /// time 0.56 of the scale, two 0.72, eight 1.0, sixteen 0.66. Four where the heads are passed over more than once.
    static RW_INLINE void turn_tile(std::int64_t half, const float* rows, std::int64_t row_stride, std::int64_t count,
                                    const T* in, T* out, strides step, bool from_memory) {
        const std::int64_t group = whole_row_held && from_memory ? 2 * heads_together : heads_together;
        for (std::int64_t left = step.heads; left > 0; left -= group) {
            step.heads = left < group ? left : group;
            for (std::int64_t token = 0; token < count; ++token) {
                const float* r = rows + token * row_stride;
                turn_token_by_chunks(half, {r, r + padded_row(half)}, in + token * step.in_token,
                                     out + token * step.out_token, step, false);
            }
            in += group * step.in_head;
            out += group * step.out_head;
        }
    }

    /// All heads of `count` tokens, each turned into a buffer in the first cache and sent to memory from there.
    /// Ordinary stores would read what they overwrite first (measured, a copy of 84 MB: 19 GB/s with them, 35 GB/s past
    /// the caches).
    static RW_INLINE void turn_past_caches(const job& work, const float* rows, std::int64_t count, const T* in, T* out,
                                           const strides& step, std::int64_t head_dim) {
        alignas(64) T buffer[most_streamed_bytes / sizeof(T)];
        const std::int64_t half = pairs(work), row_stride = work.row_stride();
        const auto bytes = static_cast<std::size_t>(head_dim) * sizeof(T);
        const auto turn_one = [&](std::int64_t token, std::int64_t head) __attribute__((always_inline)) {
            const float* const r = rows + token * row_stride;
            const T* const source = in + token * step.in_token + head * step.in_head;
            announce(source);
            if (2 * half < head_dim) std::memcpy(buffer, source, bytes);
            turn_head(half, {r, r + padded_row(half)}, source + work.rotary_offset, buffer + work.rotary_offset);
            stream_lines<A>(out + token * step.out_token + head * step.out_head, buffer, bytes);
        };
        const std::int64_t group = work.heads_major ? heads_together : step.heads;
        for (std::int64_t first = 0; first < step.heads; first += group) {
            const std::int64_t end = first + group < step.heads ? first + group : step.heads;
            for (std::int64_t token = 0; token < count; ++token)
                for (std::int64_t head = first; head < end; ++head) turn_one(token, head);
        }
    }

    /// Where one tensor of one token is read and written.
    struct place {
        const T* in;
        T* out;
        strides step;
        std::int64_t head_dim;

        place(const tensor& from, const tensor& to, std::int64_t batch, std::int64_t token)
            : in(static_cast<const T*>(from.data) + batch * from.stride_batch + token * from.stride_token),
              out(static_cast<T*>(to.data) + batch * to.stride_batch + token * to.stride_token),
              step{from.heads, from.stride_head, to.stride_head, from.stride_token, to.stride_token},
              head_dim(from.head_dim) {}

        /// On to the elements that turn; those of `count` tokens that do not are copied where the output is another.
        RW_INLINE void enter(const job& work, std::int64_t count) {
            if (in != out && 2 * pairs(work) < head_dim) pass_through(work, head_dim, count, in, out, step);
            in += work.rotary_offset;
            out += work.rotary_offset;
        }
    };

    /// All heads of one token. Where the registers hold the whole row, each element is touched in address order
    /// whichever loop is outside. Where they do not, the pairs outside keep cosines in registers, but pass over the
    /// heads more than once.
    static RW_INLINE void turn_token(std::int64_t half, row r, const T* in, T* out, const strides& step,
                                     footprint size) {
        if (whole_row_held || size == footprint::l2) {
            turn_token_by_chunks(half, r, in, out, step, size == footprint::l2);
        } else {
            turn_token_by_heads(half, r, in, out, step, size == footprint::memory);
        }
    }

    /// Some tokens of queries or of keys.
    static void turn_tensor(const job& work, const float* rows, std::int64_t batch, std::int64_t token,
                            std::int64_t count, const tensor& from, const tensor& to) {
        if (!from.exists()) return;
        place at(from, to, batch, token);
        const std::int64_t half = pairs(work), row_stride = work.row_stride();
        if (work.streaming) return turn_past_caches(work, rows, count, at.in, at.out, at.step, at.head_dim);
        at.enter(work, count);
        if (work.heads_major) {
            return turn_tile(half, rows, row_stride, count, at.in, at.out, at.step, work.size == footprint::memory);
        }
        for (std::int64_t i = 0; i < count; ++i, at.in += at.step.in_token, at.out += at.step.out_token) {
            const float* const r = rows + i * row_stride;
            turn_token(half, {r, r + padded_row(half)}, at.in, at.out, at.step, work.size);
        }
    }

    /// The next heads of one token.
    static RW_INLINE void turn_next(const job& work, place& at, const float* r, std::int64_t heads) {
        const std::int64_t half = pairs(work);
        at.step.heads = heads;
        turn_token(half, {r, r + padded_row(half)}, at.in, at.out, at.step, work.size);
        at.in += heads * at.step.in_head;
        at.out += heads * at.step.out_head;
    }

    /// One token of each of two streams, some heads of each in turn: see alternating_bytes.
    static RW_INLINE void turn_alternately(const job& work, place one, const float* one_row, place other,
                                           const float* other_row) {
        one.enter(work, 1);
        other.enter(work, 1);
        const std::int64_t heads = other.step.heads, ratio = one.step.heads / heads, group = work.alternating_heads;
        for (std::int64_t left = heads; left > 0; left -= group) {
            const std::int64_t count = left < group ? left : group;
            turn_next(work, one, one_row, ratio * count);
            turn_next(work, other, other_row, count);
        }
    }

    /// The rows of one token for queries and, where magnitudes differ, for keys: [q cos, q sin, k cos, k sin].
    static RW_INLINE void make_rows(const job& work, std::int64_t batch, std::int64_t token, float* rows,
                                    float* scratch) {
        const std::int64_t stride = padded_row(work.pairs);
        float* const cos = row_is_natural<T, L> ? rows : scratch;
        float* const sin = cos + stride;
        float* const k_cos = cos + 2 * stride;
        float* const k_sin = cos + 3 * stride;
        if (work.table.exists()) {
            fill_from_table<L>(work, batch, token, cos, sin);
        } else {
            token_position turn = position_at(work.turn, batch, token), unturn{};
            if (work.unturn.steps != nullptr) unturn = position_at(work.unturn, batch, token);
            fill_angles<A, false>(work, turn, unturn, 0, pairs(work), cos, sin);
            if (work.has_magnitude) {
                turn.axis[0].whole -= static_cast<std::uint64_t>(work.turn.centre);
                unturn.axis[0].whole -= static_cast<std::uint64_t>(work.unturn.centre);
                fill_magnitudes<A>(work, turn, unturn, 0, pairs(work), cos, sin, k_cos, k_sin);
            }
        }
        if constexpr (!row_is_natural<T, L>) {
            arrange_row<T, L, A>(pairs(work), rows, rows + stride, cos, sin);
            if (work.has_magnitude)
                arrange_row<T, L, A>(pairs(work), rows + 2 * stride, rows + 3 * stride, k_cos, k_sin);
        }
    }

    /// Rows of keys lie so far behind those of queries.
    static RW_INLINE std::int64_t k_rows(const job& work) {
        return work.has_magnitude ? 2 * padded_row(work.pairs) : 0;
    }

    /// The tokens [begin, end) as two streams: queries and keys, or the two halves of one tensor that is alone.
    static void run_alternately(const job& work, std::int64_t begin, std::int64_t end, float* scratch) {
        const bool both = work.q_in.exists() && work.k_in.exists();
        const tensor &in = work.any(), &out = work.q_in.exists() ? work.q_out : work.k_out;
        const tensor &other_in = both ? work.k_in : in, &other_out = both ? work.k_out : out;
        const std::int64_t tokens = work.tokens(), count = both ? end - begin : (end - begin) / 2;
        float* const rows = scratch + first_row(work);
        float* const more_rows = rows + work.row_stride();
        const float* const first = rows + (work.q_in.exists() ? 0 : k_rows(work));
        const float* const second = both ? rows + k_rows(work) : first + work.row_stride();
        for (std::int64_t one = begin; one < begin + count; ++one) {
            const std::int64_t other = both ? one : one + count;
            make_rows(work, one / tokens, one % tokens, rows, scratch);
            if (!both) make_rows(work, other / tokens, other % tokens, more_rows, scratch);
            turn_alternately(work, place(in, out, one / tokens, one % tokens), first,
                             place(other_in, other_out, other / tokens, other % tokens), second);
        }
        if (!both && begin + 2 * count < end) {
            make_rows(work, (end - 1) / tokens, (end - 1) % tokens, rows, scratch);
            turn_tensor(work, first, (end - 1) / tokens, (end - 1) % tokens, 1, in, out);
        }
    }

    static void run(const job& work, std::int64_t begin, std::int64_t end, float* scratch) {
        if (work.alternating_heads > 0) return run_alternately(work, begin, end, scratch);
        const std::int64_t stride = work.row_stride(), tokens = work.tokens();
        float* const rows = scratch + first_row(work);
        const bool one_row = work.batch() == 1;
        for (std::int64_t at = begin; at < end;) {
            const std::int64_t batch = one_row ? 0 : at / tokens, token = at - batch * tokens;
            std::int64_t count = work.tile < end - at ? work.tile : end - at;
            if (count > tokens - token) count = tokens - token;
            // Rows are made between the queries that use them, so that the memory has work meanwhile.
            const std::int64_t pace = work.heads_major ? count : 1;
            for (std::int64_t i = 0; i < count; i += pace) {
                for (std::int64_t j = i; j < i + pace; ++j)
                    make_rows(work, batch, token + j, rows + stride * j, scratch);
                turn_tensor(work, rows + stride * i, batch, token + i, pace, work.q_in, work.q_out);
            }
            turn_tensor(work, rows + k_rows(work), batch, token, count, work.k_in, work.k_out);
            at += count;
        }
        if (work.streaming) finish_streams();
    }
};

/// The kernel for a number of pairs: a constant for the head widths that models have.
template <class T, class L, class A>
range_function kernel_for(std::int64_t pairs) {
    switch (pairs) {
        case 32:
            return rotate_kernel<T, L, A, 32>::run;
        case 40:
            return rotate_kernel<T, L, A, 40>::run;
        case 48:
            return rotate_kernel<T, L, A, 48>::run;
        case 64:
            return rotate_kernel<T, L, A, 64>::run;
        case 128:
            return rotate_kernel<T, L, A, 128>::run;
        default:
            return rotate_kernel<T, L, A, 0>::run;
    }
}

}  // namespace ropewalk::cpu::detail
