// Heads-major traversal: a few heads at a time over a tile of tokens, where the tokens of a head are neighbours in
// memory.
#pragma once

#include "ropewalk/cpu/traversal/loops.hpp"

namespace ropewalk::cpu::detail {

template <class T, class L, class A, std::int64_t Pairs>
struct heads_major : loops<T, L, A, Pairs> {
    using base = loops<T, L, A, Pairs>;

    /// One head at a time reads as many lines of rows as of its own. Many heads are as many streams, whose lines
    /// compete for the same sets of L1 where the stride of a head is a power of two. A group in between is fastest.
    static void rotate_tile(const rotate_params& params, const float* rows, std::int64_t batch_row, std::int64_t token,
                            std::int64_t count, const tensor& in, const tensor& out) {
        typename base::token_heads heads(in, out, batch_row, token);
        const std::int64_t pairs = base::pairs(params), row_stride = params.row_stride();
        heads.enter_rotary_part(params, count);
        const bool from_memory = params.loop.size == footprint::memory;
        const std::int64_t group =
            base::whole_row_held && from_memory ? tuning::heads_major_group_from_memory : tuning::heads_major_group;
        typename base::strides step = heads.step;
        for (std::int64_t left = step.heads; left > 0; left -= group) {
            step.heads = left < group ? left : group;
            for (std::int64_t i = 0; i < count; ++i) {
                base::rotate_by_columns(pairs, {rows + i * row_stride, pairs}, heads.in + i * step.in_token,
                                        heads.out + i * step.out_token, step, false);
            }
            heads.in += group * step.in_head;
            heads.out += group * step.out_head;
        }
    }

    static void run(const rotate_params& params, std::int64_t begin, std::int64_t end, float* scratch) {
        base::for_each_tile(params, begin, end, scratch, true,
                            [&](const float* rows, const auto&... tokens) { rotate_tile(params, rows, tokens...); });
    }
};

}  // namespace ropewalk::cpu::detail
