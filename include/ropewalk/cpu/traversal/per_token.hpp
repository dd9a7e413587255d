// Traversal per token: all heads of a token, then those of the next.
#pragma once

#include "ropewalk/cpu/traversal/tiles.hpp"

namespace ropewalk::cpu::detail {

template <class A>
struct per_token {
    /// Rotates `count` tokens of one tensor, whose rows begin at `rows`.
    static void rotate_tokens(const token_range<A>& range, const float* rows, std::int64_t batch_row,
                              std::int64_t token, std::int64_t count, const tensor& in, const tensor& out) {
        const rotate_params& params = range.params;
        token_heads heads(in, out, batch_row, token);
        heads.enter_rotary_part(range.kernel, params, count);
        const std::int64_t row_stride = params.row_stride();
        for (std::int64_t i = 0; i < count; ++i, heads.next_token())
            range.loops.rotate(params.pairs, rows + i * row_stride, heads.span);
    }

    static void run(token_range<A>& range) {
        range.for_each_tile(false,
                            [&](const float* rows, const auto&... tokens) { rotate_tokens(range, rows, tokens...); });
    }
};

}  // namespace ropewalk::cpu::detail
