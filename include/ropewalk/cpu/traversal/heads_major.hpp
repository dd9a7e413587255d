// Heads-major traversal: a few heads at a time over a tile of tokens, where the tokens of a head are neighbours in
// memory.
#pragma once

#include "ropewalk/cpu/traversal/tiles.hpp"

namespace ropewalk::cpu::detail {

template <class A>
struct heads_major {
    /// One head at a time reads as many lines of rows as of its own. Many heads are as many streams, whose lines
    /// compete for the same sets of L1 where the stride of a head is a power of two. A group in between is fastest.
    static void rotate_tile(const rotate_kernel& kernel, const rotate_params& params, const float* rows,
                            std::int64_t batch_row, std::int64_t token, std::int64_t count, const tensor& in,
                            const tensor& out) {
        token_heads heads(in, out, batch_row, token);
        heads.enter_rotary_part(kernel, params, count);
        const std::int64_t row_stride = params.row_stride();
        const std::int64_t group = params.loop.group;
        for (std::int64_t left = heads.span.count; left > 0; left -= group) {
            token_heads some = heads;
            some.span.count = left < group ? left : group;
            for (std::int64_t i = 0; i < count; ++i, some.next_token())
                kernel.by_columns(params.pairs, rows + i * row_stride, some.span, {});
            heads.span.in += group * heads.span.in_stride;
            heads.span.out += group * heads.span.out_stride;
        }
    }

    static void run(token_range<A>& range) {
        range.for_each_tile(true, [&](const float* rows, const auto&... tokens) {
            rotate_tile(range.kernel, range.params, rows, tokens...);
        });
    }
};

}  // namespace ropewalk::cpu::detail
