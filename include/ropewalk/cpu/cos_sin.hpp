// Tables of cosines and sines: the angle alone, without any magnitude.
#pragma once

#include "ropewalk/cpu/execute.hpp"
#include "ropewalk/cpu/kernel.hpp"

namespace ropewalk::cpu {

namespace detail {

/// Tokens whose rows are made together: with 16 beginning a run costs 7 %, and more than 64 fit no first cache.
inline constexpr std::int64_t table_run = 64;

/// The phases of N · lane_count<A> pairs, position after position: the next one adds one step, exactly.
template <class A, int N>
class running_phases {
public:
    RW_INLINE running_phases(const std::uint64_t* steps, std::uint64_t position) {
        RW_UNROLL
        for (int i = 0; i < 2 * N; ++i) {
            step_[i] = quads<A>::load_unaligned(steps + i * lane_count<A> / 2);
            at_[i] = multiply_low<A>(step_[i], quads<A>(position));
        }
    }
    RW_INLINE words<A> next(int i) {
        const words<A> phases = odd_words<A>(at_[2 * i], at_[2 * i + 1]);
        at_[2 * i] = at_[2 * i] + step_[2 * i];
        at_[2 * i + 1] = at_[2 * i + 1] + step_[2 * i + 1];
        return phases;
    }

private:
    quads<A> at_[static_cast<std::size_t>(2 * N)], step_[static_cast<std::size_t>(2 * N)];
};

/// Rows of cosines and sines at `count` positions from `first` on, every `stride` floats: the pairs from `pair` on that
/// fill N registers, then those that fill fewer. Returns the first pair that is left.
///
/// Rows behind each other are written from end to end where N registers hold one (measured, 16 MiB: 0.54 ms; 0.55 to
/// 0.74 with half a row at a time).
template <class A, int N>
std::int64_t fill_columns(const job& work, std::int64_t pair, std::uint64_t first, std::int64_t count,
                          std::int64_t stride, float* cos, float* sin) {
    constexpr std::int64_t n = lane_count<A>;
    for (; pair + N * n <= work.pairs; pair += N * n) {
        running_phases<A, N> phases(work.turn.steps + pair, first);
        for (std::int64_t at = pair; at < pair + count * stride; at += stride) {
            RW_UNROLL
            for (int i = 0; i < N; ++i) {
                const auto value = ropewalk::cos_sin<floats<A>>(phases.next(i));
                value.cos.store_unaligned(cos + at + i * n);
                value.sin.store_unaligned(sin + at + i * n);
            }
        }
    }
    if constexpr (N > 1) return fill_columns<A, N / 2>(work, pair, first, count, stride, cos, sin);
    return pair;
}

/// The same for all pairs.
template <class A>
void fill_run(const job& work, std::uint64_t first, std::int64_t count, std::int64_t stride, float* cos, float* sin) {
    std::int64_t full = 0;
    if constexpr (lane_count<A> > 1) full = fill_columns<A, 4>(work, 0, first, count, stride, cos, sin);
    if (full == work.pairs) return;
    for (std::int64_t i = 0; i < count; ++i) {
        const token_position at{{{first + static_cast<std::uint64_t>(i), 0}}};
        fill_angles<A, true>(work, at, {}, full, work.pairs, cos + i * stride, sin + i * stride);
    }
}

/// Each value of [pairs] at both of its elements; `values` may be the first half of a half_split row.
template <class L>
RW_INLINE void write_twice(const float* values, float* row, std::int64_t pairs) {
    for (std::int64_t pair = 0; pair < pairs; ++pair) {
        const float value = values[pair];
        row[L::first(pair, pairs)] = row[L::second(pair, pairs)] = value;
    }
}

/// Rows of `columns` floats: one a pair, or one an element of the layout, so that each pair's value stands twice.
template <class L, class A>
void fill_table(const job& work, std::int64_t begin, std::int64_t end, float* scratch) {
    const std::int64_t pairs = work.pairs, columns = work.table.columns, stride = work.table.stride_row;
    auto* const cos_out = static_cast<float*>(const_cast<void*>(work.table.cos));
    auto* const sin_out = static_cast<float*>(const_cast<void*>(work.table.sin));
    const bool in_place = columns == pairs || std::is_same_v<L, half_split>;
    const bool running = in_place && work.turn.where.source == positions::kind::offset && work.turn.axes == 1;
    for (std::int64_t at = begin, count = 1; at < end; at += count) {
        float* const cos = cos_out + at * stride;
        float* const sin = sin_out + at * stride;
        float* const c = in_place ? cos : scratch;
        float* const s = in_place ? sin : scratch + padded_row(pairs);
        const token_position where = position_at(work.turn, 0, at);
        if (running) {
            count = end - at < table_run ? end - at : table_run;
            fill_run<A>(work, where.axis[0].whole, count, stride, c, s);
        } else {
            fill_angles<A, true>(work, where, {}, 0, pairs, c, s);
        }
        for (std::int64_t row = 0; columns != pairs && row < count * stride; row += stride) {
            write_twice<L>(c + row, cos + row, pairs);
            write_twice<L>(s + row, sin + row, pairs);
        }
    }
}

template <class A>
range_function table_kernel_for(layout_kind layout) {
    return layout == layout_kind::half_split ? fill_table<half_split, A> : fill_table<interleaved, A>;
}

}  // namespace detail

/// cos and sin of the angles at `tokens` positions, rows of `columns` floats: rotary_dim/2, one a pair, or rotary_dim,
/// one an element of the layout L, which is what Transformers multiplies by. Max error 1.2e-7 for |p| < 2^31.
/// `cos` and `sin` hold tokens · columns floats each.
template <Layout L, class A = native_arch>
void cos_sin(const Encoding& encoding, const positions& where, std::int64_t tokens, std::int64_t columns,
             std::span<float> cos, std::span<float> sin, int threads = 0) {
    const plan prepared = make_table_plan(kind_of<L>, encoding, where, tokens, columns, cos, sin);
    execute(prepared, detail::table_kernel_for<A>(kind_of<L>), threads);
}

}  // namespace ropewalk::cpu
