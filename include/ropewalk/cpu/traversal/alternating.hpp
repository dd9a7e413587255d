// Alternating traversal: two streams of memory in turn, of queries and keys or of the two halves of a single tensor.
#pragma once

#include "ropewalk/cpu/traversal/per_token.hpp"

namespace ropewalk::cpu::detail {

template <class T, class L, class A, std::int64_t Pairs>
struct alternating : loops<T, L, A, Pairs> {
    using base = loops<T, L, A, Pairs>;
    using token_heads = typename base::token_heads;

    /// Rotates the next `count` heads of one token.
    static RW_INLINE void rotate_next(const rotate_params& params, token_heads& heads, const float* row,
                                      std::int64_t count) {
        const std::int64_t pairs = base::pairs(params);
        heads.step.heads = count;
        base::rotate_token(pairs, {row, pairs}, heads.in, heads.out, heads.step, params.loop.size);
        heads.in += count * heads.step.in_head;
        heads.out += count * heads.step.out_head;
    }

    /// Rotates one token of each of two streams, some heads of each in turn.
    static RW_INLINE void rotate_both(const rotate_params& params, token_heads first, const float* first_row,
                                      token_heads second, const float* second_row) {
        first.enter_rotary_part(params, 1);
        second.enter_rotary_part(params, 1);
        const std::int64_t heads = second.step.heads, ratio = first.step.heads / heads;
        const std::int64_t group = params.loop.alternating_heads;
        for (std::int64_t left = heads; left > 0; left -= group) {
            const std::int64_t count = left < group ? left : group;
            rotate_next(params, first, first_row, ratio * count);
            rotate_next(params, second, second_row, count);
        }
    }

    static void run(const rotate_params& params, std::int64_t begin, std::int64_t end, float* scratch) {
        const bool both = params.q_in.exists() && params.k_in.exists();
        const tensor &in = params.any(), &out = params.q_in.exists() ? params.q_out : params.k_out;
        const tensor &second_in = both ? params.k_in : in, &second_out = both ? params.k_out : out;
        const std::int64_t tokens = params.tokens(), count = both ? end - begin : (end - begin) / 2;
        float* const rows = scratch + first_row(params);
        float* const later_rows = rows + params.row_stride();
        const float* const row = rows + (params.q_in.exists() ? 0 : base::key_row(params));
        const float* const second_row = both ? rows + base::key_row(params) : row + params.row_stride();
        for (std::int64_t at = begin; at < begin + count; ++at) {
            const std::int64_t later = both ? at : at + count;
            base::make_rows(params, at / tokens, at % tokens, rows, scratch);
            if (!both) base::make_rows(params, later / tokens, later % tokens, later_rows, scratch);
            rotate_both(params, token_heads(in, out, at / tokens, at % tokens), row,
                        token_heads(second_in, second_out, later / tokens, later % tokens), second_row);
        }
        if (!both && begin + 2 * count < end) {  // an odd number of tokens
            const std::int64_t last = end - 1;
            base::make_rows(params, last / tokens, last % tokens, rows, scratch);
            per_token<T, L, A, Pairs>::rotate_tokens(params, row, last / tokens, last % tokens, 1, in, out);
        }
    }
};

}  // namespace ropewalk::cpu::detail
