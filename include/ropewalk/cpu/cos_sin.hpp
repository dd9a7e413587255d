// Tables of cosines and sines, without any magnitude.
#pragma once

#include "ropewalk/cpu/cos_sin_row.hpp"
#include "ropewalk/cpu/execute.hpp"
#include "ropewalk/cpu/plan.hpp"

namespace ropewalk::cpu {

namespace detail {

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

/// Writes cosines and sines of `count` positions from `first` on, one row every `stride` floats: the pairs from `pair`
/// on that fill N registers, then those that fill fewer. Returns the first pair that is left. Where N registers hold a
/// row, consecutive rows are written from end to end (16 MiB: 0.54 ms, against 0.55 to 0.74 with half a row at a time).
template <class A, int N>
std::int64_t fill_columns(const rotate_params& params, std::int64_t pair, std::uint64_t first, std::int64_t count,
                          std::int64_t stride, float* cos, float* sin) {
    constexpr std::int64_t n = lane_count<A>;
    for (; pair + N * n <= params.pairs; pair += N * n) {
        running_phases<A, N> phases(params.target.steps + pair, first);
        for (std::int64_t at = pair; at < pair + count * stride; at += stride) {
            RW_UNROLL
            for (int i = 0; i < N; ++i) {
                const auto value = ropewalk::cos_sin<floats<A>>(phases.next(i));
                value.cos.store_unaligned(cos + at + i * n);
                value.sin.store_unaligned(sin + at + i * n);
            }
        }
    }
    if constexpr (N > 1) return fill_columns<A, N / 2>(params, pair, first, count, stride, cos, sin);
    return pair;
}

/// The same for all pairs.
template <class A>
void fill_run(const rotate_params& params, std::uint64_t first, std::int64_t count, std::int64_t stride, float* cos,
              float* sin) {
    const std::int64_t full = fill_columns<A, 4>(params, 0, first, count, stride, cos, sin);
    if (full == params.pairs) return;
    for (std::int64_t i = 0; i < count; ++i) {
        const token_position at{.whole = {first + static_cast<std::uint64_t>(i)}}, no_source{};
        fill_last<A, true>(params, {at, params.target.steps, 1, params.pairs}, {no_source, nullptr, 1, params.pairs},
                           full, params.pairs, cos + i * stride, sin + i * stride);
    }
}

/// Writes each value of [pairs] to both of its elements; `values` may be the first half of a half_split row.
template <class L>
RW_INLINE void write_twice(const float* values, float* row, std::int64_t pairs) {
    for (std::int64_t pair = 0; pair < pairs; ++pair) {
        const float value = values[pair];
        row[L::first(pair, pairs)] = row[L::second(pair, pairs)] = value;
    }
}

/// Fills rows of `columns` floats: one per pair, or one per element of the layout, so that each value is stored twice.
template <class L, class A>
void fill_table(const rotate_params& params, std::int64_t begin, std::int64_t end, float* scratch) {
    const std::int64_t pairs = params.pairs, columns = params.table.columns, stride = params.table.stride_row;
    auto* const cos_out = static_cast<float*>(const_cast<void*>(params.table.cos));
    auto* const sin_out = static_cast<float*>(const_cast<void*>(params.table.sin));
    const bool in_place = columns == pairs || std::is_same_v<L, half_split>;
    const bool running =
        in_place && params.target.positions.kind == positions::kind::offset && params.target.positions.axes == 1;
    for (std::int64_t at = begin, count = 1; at < end; at += count) {
        float* const cos = cos_out + at * stride;
        float* const sin = sin_out + at * stride;
        float* const c = in_place ? cos : scratch;
        float* const s = in_place ? sin : scratch + padded_row(pairs);
        const token_position position = params.target.positions.at(0, at);
        if (running) {
            count = end - at < tuning::table_run_tokens ? end - at : tuning::table_run_tokens;
            fill_run<A>(params, position.whole[0], count, stride, c, s);
        } else {
            fill_cos_sin<A, true>(params, position, {}, c, s);
        }
        for (std::int64_t row = 0; columns != pairs && row < count * stride; row += stride) {
            write_twice<L>(c + row, cos + row, pairs);
            write_twice<L>(s + row, sin + row, pairs);
        }
    }
}

template <class A>
kernel_function table_kernel_for(layout_kind layout) {
    return layout == layout_kind::half_split ? fill_table<half_split, A> : fill_table<interleaved, A>;
}

}  // namespace detail

/// Writes cos and sin of the angles at `tokens` positions, in rows of `columns` floats: rotary_dim/2, one per pair, or
/// rotary_dim, one per element of the layout L, the order that Transformers uses. Max error 1.2e-7 for |p| < 2^31.
/// `cos` and `sin` hold tokens · columns floats each; throws ropewalk::error where they are shorter or overlap.
template <Layout L, class A = native_arch>
void cos_sin(const Encoding& encoding, const positions& positions, std::int64_t tokens, std::int64_t columns,
             std::span<float> cos, std::span<float> sin, const threads& threads = {}) {
    const rotate_plan plan = make_table_plan(kind_of<L>, encoding, positions, tokens, columns, cos, sin);
    execute(plan.params, detail::table_kernel_for<A>(kind_of<L>), threads);
}

}  // namespace ropewalk::cpu
