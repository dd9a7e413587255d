// Tiles of tokens, their cos_sin rows, and the heads of one token: what the traversals share.
#pragma once

#include <cstring>

#include "ropewalk/cpu/cos_sin_row.hpp"
#include "ropewalk/cpu/head_loops.hpp"

namespace ropewalk::cpu::detail {

/// Floats from the row of the queries of a token to that of its keys.
inline std::int64_t key_row(const rotate_params& params) {
    return params.has_magnitude ? 2 * padded_row(params.pairs) : 0;
}

/// Writes the rows of one token, and those of its keys where magnitudes differ: [q cos, q sin, k cos, k sin].
/// `scratch` holds them in pair order meanwhile.
template <class A>
void make_rows(const rotate_kernel& kernel, const rotate_params& params, std::int64_t batch_row, std::int64_t token,
               float* rows, float* scratch) {
    const std::int64_t stride = padded_row(params.pairs);
    float* const cos = kernel.arrange == nullptr ? rows : scratch;
    float* const sin = cos + stride;
    float* const k_cos = cos + 2 * stride;
    float* const k_sin = cos + 3 * stride;
    if (params.table.exists()) {
        fill_from_table<A>(params, kernel.interleaved, batch_row, token, cos, sin);
    } else {
        token_position target = params.target.positions.at(batch_row, token), source{};
        if (params.source.steps != nullptr) source = params.source.positions.at(batch_row, token);
        fill_cos_sin<A, false>(params, target, source, 0, params.pairs, cos, sin);
        if (params.has_magnitude) {
            target.whole[0] -= static_cast<std::uint64_t>(params.target.centre);
            source.whole[0] -= static_cast<std::uint64_t>(params.source.centre);
            apply_magnitude<A>(params, target, source, cos, sin, k_cos, k_sin);
        }
    }
    if (kernel.arrange == nullptr) return;
    kernel.arrange(params.pairs, rows, rows + stride, cos, sin);
    if (params.has_magnitude) kernel.arrange(params.pairs, rows + 2 * stride, rows + 3 * stride, k_cos, k_sin);
}

/// A range of tokens to rotate.
template <class A>
struct token_range {
    const rotate_kernel& kernel;
    const rotate_params& params;
    std::int64_t begin, end;  ///< counted through the batch
    float* scratch;

    [[nodiscard]] float* rows() const { return scratch + first_row(params); }
    void make_rows(std::int64_t batch_row, std::int64_t token, float* rows) const {
        detail::make_rows<A>(kernel, params, batch_row, token, rows, scratch);
    }

    /// Calls rotate_tokens(rows, batch_row, token, count, in, out) for the queries, then the keys, of the tokens
    /// [begin, end), tile by tile. Each row is made just before the queries that use it, so that memory stays busy,
    /// unless a tile of `rows_at_once` is wanted.
    template <class F>
    void for_each_tile(bool rows_at_once, const F& rotate_tokens) const {
        const std::int64_t stride = params.row_stride(), tokens = params.tokens(), tile = params.loop.tile;
        float* const first = rows();
        const bool one_batch_row = params.batch() == 1;
        for (std::int64_t at = begin; at < end;) {
            const std::int64_t batch_row = one_batch_row ? 0 : at / tokens, token = at - batch_row * tokens;
            std::int64_t count = tile < end - at ? tile : end - at;
            if (count > tokens - token) count = tokens - token;
            const std::int64_t step = rows_at_once ? count : 1;
            for (std::int64_t i = 0; i < count; i += step) {
                for (std::int64_t j = i; j < i + step; ++j) make_rows(batch_row, token + j, first + stride * j);
                if (params.q_in.exists())
                    rotate_tokens(first + stride * i, batch_row, token + i, step, params.q_in, params.q_out);
            }
            if (params.k_in.exists())
                rotate_tokens(first + key_row(params), batch_row, token, count, params.k_in, params.k_out);
            at += count;
        }
    }
};

/// The heads of one token of one tensor. Strides are in bytes.
template <class A>
struct token_heads {
    head_span span;
    std::int64_t in_token, out_token, head_bytes;

    token_heads(const tensor& from, const tensor& to, std::int64_t batch_row, std::int64_t token) {
        const auto size = static_cast<std::int64_t>(size_of(from.type));
        const auto at = [&](const tensor& t) {
            return static_cast<std::byte*>(t.data) + (batch_row * t.stride_batch + token * t.stride_token) * size;
        };
        span = {at(from), at(to), from.heads, from.stride_head * size, to.stride_head * size};
        in_token = from.stride_token * size, out_token = to.stride_token * size;
        head_bytes = from.head_dim * size;
    }

    /// Advances to the rotary part. Out of place, copies the rest of the heads of `count` tokens first.
    RW_INLINE void enter_rotary_part(const rotate_kernel& kernel, const rotate_params& params, std::int64_t count) {
        const std::int64_t offset = params.rotary_offset * kernel.element_bytes;
        const std::int64_t rotary = 2 * params.pairs * kernel.element_bytes;
        if (span.in != span.out && rotary < head_bytes) copy_rest(offset, offset + rotary, count);
        span.in += offset;
        span.out += offset;
    }

    RW_INLINE void next_token() {
        span.in += in_token;
        span.out += out_token;
    }

private:
    void copy_rest(std::int64_t begin, std::int64_t end, std::int64_t count) const {
        for (std::int64_t head = 0; head < span.count; ++head) {
            for (std::int64_t token = 0; token < count; ++token) {
                const std::byte* const from = span.in + head * span.in_stride + token * in_token;
                std::byte* const to = span.out + head * span.out_stride + token * out_token;
                if (begin > 0) std::memcpy(to, from, static_cast<std::size_t>(begin));
                if (end < head_bytes) std::memcpy(to + end, from + end, static_cast<std::size_t>(head_bytes - end));
            }
        }
    }
};

/// The loop over the heads of a token for the size of the call, and its prefetch distance.
struct head_loop_choice {
    head_loop loop;
    std::int64_t prefetch;

    head_loop_choice(const rotate_kernel& kernel, std::int64_t pairs, footprint size) {
        const bool columns = kernel.takes_columns(pairs, size);
        loop = columns ? kernel.by_columns : kernel.by_heads;
        prefetch = columns ? (size == footprint::l2 ? tuning::l1_prefetch_lines * tuning::line_bytes : 0)
                           : (size == footprint::memory ? tuning::l2_prefetch_bytes : 0);
    }
};

}  // namespace ropewalk::cpu::detail
