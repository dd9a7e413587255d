// Traversal per token: all heads of a token, then those of the next.
#pragma once

#include "ropewalk/cpu/traversal/loops.hpp"

namespace ropewalk::cpu::detail {

template <class T, class L, class A, std::int64_t Pairs>
struct per_token : loops<T, L, A, Pairs> {
    using base = loops<T, L, A, Pairs>;

    /// Rotates `count` tokens of one tensor, whose rows begin at `rows`.
    static void rotate_tokens(const rotate_params& params, const float* rows, std::int64_t batch_row,
                              std::int64_t token, std::int64_t count, const tensor& in, const tensor& out) {
        typename base::token_heads heads(in, out, batch_row, token);
        const std::int64_t pairs = base::pairs(params), row_stride = params.row_stride();
        heads.enter_rotary_part(params, count);
        for (std::int64_t i = 0; i < count; ++i) {
            base::rotate_token(pairs, {rows + i * row_stride, pairs}, heads.in, heads.out, heads.step,
                               params.loop.size);
            heads.in += heads.step.in_token;
            heads.out += heads.step.out_token;
        }
    }

    static void run(const rotate_params& params, std::int64_t begin, std::int64_t end, float* scratch) {
        base::for_each_tile(params, begin, end, scratch, false,
                            [&](const float* rows, const auto&... tokens) { rotate_tokens(params, rows, tokens...); });
    }
};

}  // namespace ropewalk::cpu::detail
