// Alternating traversal: two streams of memory in turn, of queries and keys or of the two halves of a single tensor.
#pragma once

#include "ropewalk/cpu/traversal/per_token.hpp"

namespace ropewalk::cpu::detail {

template <class A>
struct alternating {
    /// Rotates one token of each of two streams, some heads of each in turn.
    static void rotate_both(const token_range<A>& range, token_heads first, const float* first_row, token_heads second,
                            const float* second_row) {
        const rotate_params& params = range.params;
        first.enter_rotary_part(range.kernel, params, 1);
        second.enter_rotary_part(range.kernel, params, 1);
        const std::int64_t ratio = first.span.count / second.span.count, group = params.loop.alternating_heads;
        const auto rotate_next = [&](head_span& heads, const float* row, std::int64_t count) {
            heads.count = count;
            range.loops.rotate(params.pairs, row, heads);
            heads.in += count * heads.in_stride;
            heads.out += count * heads.out_stride;
        };
        for (std::int64_t left = second.span.count; left > 0; left -= group) {
            const std::int64_t count = left < group ? left : group;
            rotate_next(first.span, first_row, ratio * count);
            rotate_next(second.span, second_row, count);
        }
    }

    static void run(token_range<A>& range) {
        const rotate_params& params = range.params;
        const std::int64_t begin = range.begin, end = range.end;
        const bool both = params.q_in.exists() && params.k_in.exists();
        const tensor &in = params.any(), &out = params.q_in.exists() ? params.q_out : params.k_out;
        const tensor &second_in = both ? params.k_in : in, &second_out = both ? params.k_out : out;
        const std::int64_t tokens = params.tokens(), count = both ? end - begin : (end - begin) / 2;
        float* const rows = range.rows();
        float* const later_rows = rows + params.row_stride();
        const float* const row = rows + (params.q_in.exists() ? 0 : key_row(params));
        const float* const second_row = both ? rows + key_row(params) : row + params.row_stride();
        for (std::int64_t at = begin; at < begin + count; ++at) {
            const std::int64_t later = both ? at : at + count;
            range.make_rows(at / tokens, at % tokens, rows);
            if (!both) range.make_rows(later / tokens, later % tokens, later_rows);
            rotate_both(range, {in, out, at / tokens, at % tokens}, row,
                        {second_in, second_out, later / tokens, later % tokens}, second_row);
        }
        if (!both && begin + 2 * count < end) {  // an odd number of tokens
            const std::int64_t last = end - 1;
            range.make_rows(last / tokens, last % tokens, rows);
            per_token<A>::rotate_tokens(range, row, last / tokens, last % tokens, 1, in, out);
        }
    }
};

}  // namespace ropewalk::cpu::detail
