// Streaming traversal: each head is rotated into a buffer in L1 and written to memory by non-temporal stores.
#pragma once

#include "ropewalk/cpu/traversal/tiles.hpp"

namespace ropewalk::cpu::detail {

template <class A>
struct streaming {
    static void rotate_tokens(const rotate_kernel& kernel, const rotate_params& params, const float* rows,
                              std::int64_t batch_row, std::int64_t token, std::int64_t count, const tensor& in,
                              const tensor& out) {
        alignas(64) std::byte buffer[tuning::max_streamed_head_bytes];
        const token_heads<A> heads(in, out, batch_row, token);
        const std::int64_t row_stride = params.row_stride(), offset = params.rotary_offset * kernel.element_bytes;
        const auto bytes = static_cast<std::size_t>(heads.head_bytes);
        const bool partial = 2 * params.pairs * kernel.element_bytes < heads.head_bytes;
        const auto rotate_one = [&](std::int64_t i, std::int64_t head) {
            const std::byte* const source = heads.span.in + i * heads.in_token + head * heads.span.in_stride;
            if (partial) std::memcpy(buffer, source, bytes);
            const head_span one{source + offset, buffer + offset, 1, 0, 0};
            kernel.by_heads(params.pairs, rows + i * row_stride, one, tuning::l2_prefetch_bytes);
            stream_lines<A>(heads.span.out + i * heads.out_token + head * heads.span.out_stride, buffer, bytes);
        };
        const std::int64_t all = heads.span.count;
        const std::int64_t group = params.loop.heads_major ? tuning::heads_major_group : all;
        for (std::int64_t first = 0; first < all; first += group) {
            const std::int64_t end = first + group < all ? first + group : all;
            for (std::int64_t i = 0; i < count; ++i)
                for (std::int64_t head = first; head < end; ++head) rotate_one(i, head);
        }
    }

    static void run(token_range<A>& range) {
        range.for_each_tile(range.params.loop.heads_major, [&](const float* rows, const auto&... tokens) {
            rotate_tokens(range.kernel, range.params, rows, tokens...);
        });
        finish_streams();
    }
};

}  // namespace ropewalk::cpu::detail
