// Streaming traversal: a few heads are rotated into a buffer in L1 and written to memory by non-temporal stores.
#pragma once

#include "ropewalk/cpu/traversal/tiles.hpp"

namespace ropewalk::cpu::detail {

template <class A>
struct streaming {
    static void rotate_tokens(const rotate_kernel& kernel, const rotate_params& params, const float* rows,
                              std::int64_t batch_row, std::int64_t token, std::int64_t count, const tensor& in,
                              const tensor& out) {
        alignas(64) std::byte buffer[tuning::streamed_bytes];
        const token_heads heads(in, out, batch_row, token);
        const std::int64_t row_stride = params.row_stride(), offset = params.rotary_offset * kernel.element_bytes;
        const std::int64_t bytes = heads.head_bytes, all = heads.span.count;
        const bool partial = 2 * params.pairs * kernel.element_bytes < bytes;
        const auto rotate_some = [&](std::int64_t i, std::int64_t first, std::int64_t some) {
            const std::byte* const source = heads.span.in + i * heads.in_token + first * heads.span.in_stride;
            std::byte* const target = heads.span.out + i * heads.out_token + first * heads.span.out_stride;
            for (std::int64_t head = 0; partial && head < some; ++head)
                std::memcpy(buffer + head * bytes, source + head * heads.span.in_stride,
                            static_cast<std::size_t>(bytes));
            const head_span span{source + offset, buffer + offset, some, heads.span.in_stride, bytes};
            kernel.by_heads(params.pairs, rows + i * row_stride, span, params.loop.heads_prefetch);
            for (std::int64_t head = 0; head < some; ++head)
                stream_lines<A>(target + head * heads.span.out_stride, buffer + head * bytes,
                                static_cast<std::size_t>(bytes));
        };
        const std::int64_t fit = tuning::streamed_bytes / bytes;
        const std::int64_t group = params.loop.heads_major && params.loop.group < fit ? params.loop.group : fit;
        const std::int64_t tokens = params.loop.heads_major ? count : 1;  // per group of heads
        for (std::int64_t begin = 0; begin < count; begin += tokens)
            for (std::int64_t first = 0; first < all; first += group)
                for (std::int64_t i = begin; i < begin + tokens; ++i)
                    rotate_some(i, first, first + group < all ? group : all - first);
    }

    static void run(token_range<A>& range) {
        range.for_each_tile(range.params.loop.heads_major, [&](const float* rows, const auto&... tokens) {
            rotate_tokens(range.kernel, range.params, rows, tokens...);
        });
        finish_streams();
    }
};

}  // namespace ropewalk::cpu::detail
