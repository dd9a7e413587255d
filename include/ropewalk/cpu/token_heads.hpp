// Heads of one token in memory, and the choice of the loop over them.
#pragma once

#include <cstring>

#include "ropewalk/cpu/rotate_kernel.hpp"

namespace ropewalk::cpu::detail {
inline namespace RW_ISA {

/// Floats from the row of the queries of a token to that of its keys.
RW_INLINE std::int64_t key_row(const rotate_params& params) {
    return params.has_magnitude ? 2 * padded_row(params.pairs) : 0;
}

/// The heads of one token of one tensor. Strides are in bytes.
struct token_heads {
    head_span span;
    std::int64_t in_token, out_token, head_bytes;

    token_heads(const tensor& from, const tensor& to, std::int64_t batch_row, std::int64_t token)
        : token_heads(from, from.data, to, to.data, batch_row, token) {}
    /// The same at other addresses: `from` and `to` have the shapes and strides only.
    token_heads(const tensor& from, const void* in, const tensor& to, void* out, std::int64_t batch_row,
                std::int64_t token) {
        const auto size = static_cast<std::int64_t>(size_of(from.type));
        const auto bytes = [&](const tensor& t) {
            return (batch_row * t.stride_batch + token * t.stride_token) * size;
        };
        span = {static_cast<const std::byte*>(in) + bytes(from), static_cast<std::byte*>(out) + bytes(to), from.heads,
                from.stride_head * size, to.stride_head * size};
        in_token = from.stride_token * size, out_token = to.stride_token * size;
        head_bytes = from.head_dim * size;
    }

    /// The heads of one token of unspecified strides.
    token_heads(const head_span& heads, std::int64_t bytes)
        : span(heads), in_token(0), out_token(0), head_bytes(bytes) {}

    /// Advances to the rotary part. Out of place, copies the rest of the heads of `count` tokens first.
    RW_INLINE void enter_rotary_part(const rotate_kernel& kernel, const rotate_params& params, std::int64_t count) {
        if (span.in != span.out) copy_rest(kernel, params, count);
        const std::int64_t offset = params.rotary_offset * kernel.element_bytes;
        span.in += offset;
        span.out += offset;
    }

    /// Copies the elements outside of the rotary part of the heads of `count` tokens.
    void copy_rest(const rotate_kernel& kernel, const rotate_params& params, std::int64_t count) const {
        const std::int64_t begin = params.rotary_offset * kernel.element_bytes;
        const std::int64_t end = begin + 2 * params.pairs * kernel.element_bytes;
        if (begin == 0 && end == head_bytes) return;
        for (std::int64_t head = 0; head < span.count; ++head) {
            for (std::int64_t token = 0; token < count; ++token) {
                const std::byte* const from = span.in + head * span.in_stride + token * in_token;
                std::byte* const to = span.out + head * span.out_stride + token * out_token;
                if (begin > 0) std::memcpy(to, from, static_cast<std::size_t>(begin));
                if (end < head_bytes) std::memcpy(to + end, from + end, static_cast<std::size_t>(head_bytes - end));
            }
        }
    }

    RW_INLINE void next_token() {
        span.in += in_token;
        span.out += out_token;
    }
};

/// The loops over the heads of a token, and their prefetches.
struct head_loop_choice {
    head_loop several, single;
    prefetch_range prefetch;

    /// By columns where registers hold the whole row, and from L2; by heads elsewhere, since columns pass over the
    /// heads more than once.
    RW_INLINE head_loop_choice(const rotate_kernel& kernel, const rotate_params& params) : single(kernel.by_heads) {
        const loop_choice& loop = params.loop;
        const bool columns = loop.size == footprint::l2 || (kernel.holds_row(params.pairs) && !loop.by_heads);
        several = columns ? kernel.by_columns : kernel.by_heads;
        prefetch = columns ? loop.columns_prefetch : loop.heads_prefetch;
    }
    RW_INLINE void rotate(std::int64_t pairs, const float* row, const head_span& heads) const {
        (heads.count == 1 ? single : several)(pairs, row, heads, prefetch);
    }
};

}  // namespace RW_ISA
}  // namespace ropewalk::cpu::detail
