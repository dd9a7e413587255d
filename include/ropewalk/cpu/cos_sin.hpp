// Tables of cosines and sines: the angle alone, without any magnitude.
#pragma once

#include "ropewalk/cpu/execute.hpp"
#include "ropewalk/cpu/kernel.hpp"

namespace ropewalk::cpu {

namespace detail {

/// Rows of `columns` floats: one a pair, or one an element of the layout, so that each pair's value stands twice.
template <class L, class A>
void fill_table(const job& work, std::int64_t begin, std::int64_t end, float* scratch) {
    const std::int64_t pairs = work.pairs, columns = work.table.columns;
    auto* const cos_out = static_cast<float*>(const_cast<void*>(work.table.cos));
    auto* const sin_out = static_cast<float*>(const_cast<void*>(work.table.sin));
    for (std::int64_t at = begin; at < end; ++at) {
        float* const cos = cos_out + at * work.table.stride_row;
        float* const sin = sin_out + at * work.table.stride_row;
        const bool in_place = columns == pairs || std::is_same_v<L, half_split>;
        float* const c = in_place ? cos : scratch;
        float* const s = in_place ? sin : scratch + padded_row(pairs);
        fill_angles<A, true>(work, position_at(work.turn, 0, at), {}, 0, pairs, c, s);
        if (columns == pairs) continue;
        for (std::int64_t pair = 0; pair < pairs; ++pair) {
            cos[L::first(pair, pairs)] = c[pair];
            cos[L::second(pair, pairs)] = c[pair];
            sin[L::first(pair, pairs)] = s[pair];
            sin[L::second(pair, pairs)] = s[pair];
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
template <Layout L>
void cos_sin(const Encoding& encoding, const positions& where, std::int64_t tokens, std::int64_t columns,
             std::span<float> cos, std::span<float> sin, int threads = 0) {
    const plan prepared = make_table_plan(encoding, where, tokens, columns, cos, sin);
    execute(prepared, detail::table_kernel_for<native_arch>(kind_of<L>), threads);
}

}  // namespace ropewalk::cpu
