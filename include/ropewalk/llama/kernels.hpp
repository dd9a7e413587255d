// What a layer needs computed, as a table of plain functions: native_kernels() has them for the instruction set of the
// translation unit that asks, the runtime for that of the machine.
#pragma once

#include <cstdint>
#include <span>

#include "ropewalk/cpu/options.hpp"
#include "ropewalk/encoding.hpp"
#include "ropewalk/llama/matrix.hpp"
#include "ropewalk/llama/pages.hpp"

namespace ropewalk::llama::cpu {

/// Consecutive tokens of one sequence within a call.
struct sequence_part {
    std::int64_t first = 0;             ///< the row of its first token in the call's tensors
    std::int64_t tokens = 0;            ///< rows it has there
    std::int64_t past = 0;              ///< tokens of the sequence that are cached before these
    std::byte* const* pages = nullptr;  ///< [⌈(past + tokens) / page_tokens⌉], in order of the sequence
};

/// Keys or values on their way into a cache or out of it: rows [part.first …, kv_heads, head_dim] of the call.
struct cache_rows {
    float* rows = nullptr;
    sequence_part part;
    page_layout layout;
    bool keys = true;  ///< else values
};

/// Causal attention of the tokens of a call over caches that already hold their keys and values.
struct attend_job {
    const float* q = nullptr;  ///< [tokens, heads, head_dim]
    float* out = nullptr;      ///< [tokens, heads, head_dim], elsewhere
    std::int64_t heads = 0;
    float scale = 1;  ///< multiplies the scores
    std::span<const sequence_part> parts;
    page_layout layout;
};

/// All results are the same for any number of threads. `threads` 0: as many as OpenMP gives. Nothing is checked here.
struct kernel_table {
    const char* name = nullptr;

    /// y[t, r] = Σ_c x[t, c] · w[r, c], or that added to y: x [tokens, w.columns], y [tokens, w.rows].
    void (*linear)(const float* x, std::int64_t tokens, const matrix& w, float* y, bool add, int threads) = nullptr;

    /// y = x / √(mean(x²) + epsilon) · weight a row: x, y [tokens, width], in place where they agree. weight [width].
    void (*rms_norm)(const float* x, std::int64_t tokens, std::int64_t width, const float* weight, float epsilon,
                     float* y, int threads) = nullptr;

    /// gate = gate / (1 + e^−gate) · up.
    void (*silu_multiply)(float* gate, const float* up, std::int64_t count, int threads) = nullptr;

    /// Rows into the cache, at the entries past … past + tokens − 1 of their sequence; and those entries back into
    /// rows.
    void (*store_rows)(const cache_rows& job, int threads) = nullptr;
    void (*load_rows)(const cache_rows& job, int threads) = nullptr;

    void (*attend)(const attend_job& job, int threads) = nullptr;

    /// ropewalk::cpu::rotate() in place, and ropewalk::cpu::rerotate() in place, of f32.
    void (*rotate)(layout_kind layout, const tensor& q, const tensor& k, const Encoding& encoding,
                   const positions& where, int threads) = nullptr;
    void (*rerotate)(layout_kind layout, const tensor& k, const Encoding& from, const Encoding& to,
                     const positions& where, int threads) = nullptr;
};

}  // namespace ropewalk::llama::cpu
