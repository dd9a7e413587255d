// Traversal per token: all heads of a token, then those of the next.
#pragma once

#include "ropewalk/cpu/traversal/tiles.hpp"

namespace ropewalk::cpu::detail {

template <class A>
struct per_token {
    /// Rotates `count` tokens of one tensor, whose rows begin at `rows`.
    static void rotate_tokens(const rotate_kernel& kernel, const rotate_params& params, const float* rows,
                              std::int64_t batch_row, std::int64_t token, std::int64_t count, const tensor& in,
                              const tensor& out) {
        token_heads<A> heads(in, out, batch_row, token);
        heads.enter_rotary_part(kernel, params, count);
        const head_loop_choice loops(kernel, params.pairs, params.loop.size);
        const std::int64_t row_stride = params.row_stride();
        for (std::int64_t i = 0; i < count; ++i, heads.next_token())
            loops.rotate(params.pairs, rows + i * row_stride, heads.span);
    }

    static void run(const token_range<A>& range) {
        range.for_each_tile(false, [&](const float* rows, const auto&... tokens) {
            rotate_tokens(range.kernel, range.params, rows, tokens...);
        });
    }
};

}  // namespace ropewalk::cpu::detail
