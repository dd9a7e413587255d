// Streaming traversal: each head is rotated into a buffer in L1 and written to memory by non-temporal stores.
#pragma once

#include "ropewalk/cpu/traversal/loops.hpp"

namespace ropewalk::cpu::detail {

template <class T, class L, class A, std::int64_t Pairs>
struct streaming : loops<T, L, A, Pairs> {
    using base = loops<T, L, A, Pairs>;

    static void rotate_tokens(const rotate_params& params, const float* rows, std::int64_t batch_row,
                              std::int64_t token, std::int64_t count, const tensor& in, const tensor& out) {
        alignas(64) T buffer[tuning::max_streamed_head_bytes / sizeof(T)];
        const typename base::token_heads heads(in, out, batch_row, token);
        const typename base::strides step = heads.step;
        const std::int64_t pairs = base::pairs(params), row_stride = params.row_stride(), head_dim = heads.head_dim;
        const auto bytes = static_cast<std::size_t>(head_dim) * sizeof(T);
        const auto rotate_one = [&](std::int64_t i, std::int64_t head) __attribute__((always_inline)) {
            const T* const source = heads.in + i * step.in_token + head * step.in_head;
            base::prefetch_l2(source);
            if (2 * pairs < head_dim) std::memcpy(buffer, source, bytes);
            base::rotate_head(pairs, {rows + i * row_stride, pairs}, source + params.rotary_offset,
                              buffer + params.rotary_offset);
            stream_lines<A>(heads.out + i * step.out_token + head * step.out_head, buffer, bytes);
        };
        const std::int64_t group = params.loop.heads_major ? tuning::heads_major_group : step.heads;
        for (std::int64_t first = 0; first < step.heads; first += group) {
            const std::int64_t end = first + group < step.heads ? first + group : step.heads;
            for (std::int64_t i = 0; i < count; ++i)
                for (std::int64_t head = first; head < end; ++head) rotate_one(i, head);
        }
    }

    static void run(const rotate_params& params, std::int64_t begin, std::int64_t end, float* scratch) {
        base::for_each_tile(params, begin, end, scratch, params.loop.heads_major,
                            [&](const float* rows, const auto&... tokens) { rotate_tokens(params, rows, tokens...); });
        finish_streams();
    }
};

}  // namespace ropewalk::cpu::detail
