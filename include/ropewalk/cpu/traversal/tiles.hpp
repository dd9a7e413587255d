// Tiles of tokens and their cos_sin rows.
#pragma once

#include "ropewalk/cpu/cos_sin_row.hpp"
#include "ropewalk/cpu/token_heads.hpp"

namespace ropewalk::cpu::detail {

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
        fill_cos_sin<A, false>(params, target, source, cos, sin);
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
    head_loop_choice loops{kernel, params};
    bool rows_made = false;

    [[nodiscard]] float* rows() const { return scratch + first_row(params); }
    void make_rows(std::int64_t batch_row, std::int64_t token, float* rows) {
        if (params.loop.shared_row && rows_made) return;
        detail::make_rows<A>(kernel, params, batch_row, token, rows, scratch);
        rows_made = true;
    }

    /// Calls rotate_tokens(rows, batch_row, token, count, in, out) for the queries, then the keys, of the tokens
    /// [begin, end), tile by tile. Each row is made just before the queries that use it, so that memory stays busy,
    /// unless a tile of `rows_at_once` is wanted.
    template <class F>
    void for_each_tile(bool rows_at_once, const F& rotate_tokens) {
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

}  // namespace ropewalk::cpu::detail
