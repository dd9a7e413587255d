// Kernels of a layer as a table of plain functions: native_kernels() for the instruction set of a translation unit,
// dispatch::llama_kernels() for that of the machine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "ropewalk/core/view.hpp"
#include "ropewalk/cpu/prepared_rotation.hpp"
#include "ropewalk/encoding.hpp"
#include "ropewalk/llama/batch.hpp"
#include "ropewalk/llama/kv_cache.hpp"
#include "ropewalk/llama/weights.hpp"

namespace ropewalk::llama::cpu {

/// Rows of one sequence in a call, and the pages of its cache in order: [⌈(past + tokens) / page_tokens⌉].
struct paged_rows : sequence_rows {
    std::byte* const* pages = nullptr;
};

/// Keys or values between the rows of a call, [tokens, kv_heads, head_dim], and the cache.
struct cache_params {
    float* rows = nullptr;
    paged_rows sequence;
    page_layout layout;
    bool keys = true;  ///< false: values
};

/// Causal attention of the tokens of a call over caches that already hold their keys and values.
struct attend_params {
    const float* q = nullptr;  ///< [tokens, heads, head_dim]
    float* out = nullptr;      ///< [tokens, heads, head_dim], not q
    std::int64_t heads = 0;
    float scale = 1;  ///< multiplies the scores
    std::span<const paged_rows> sequences;
    page_layout layout;
};

/// Weights [rows, columns] and where their product with the tokens goes: y [tokens, rows].
struct product {
    matrix w;
    float* y = nullptr;
};

/// Results do not depend on the number of threads; `threads` 0 means OpenMP's number. Kernels check nothing.
struct kernel_table {
    const char* name = nullptr;

    /// y[t, r] = Σ_c x[t, c] · w[r, c] for every product, or adds that to y: x [tokens, columns]. Products of one call
    /// share the tokens and the threads.
    void (*linear)(const float* x, std::int64_t tokens, std::span<const product> products, bool add,
                   int threads) = nullptr;

    /// y = x / √(mean(x²) + epsilon) · weight per row: x, y [tokens, width], in place if equal; weight [width]. Returns
    /// the first row whose mean is not finite, or −1: the norms of a stack check its hidden states in passing.
    std::int64_t (*rms_norm)(const float* x, std::int64_t tokens, std::int64_t width, const float* weight,
                             float epsilon, float* y, int threads) = nullptr;

    /// gate = gate / (1 + e^−gate) · up.
    void (*silu_multiply)(float* gate, const float* up, std::int64_t count, int threads) = nullptr;

    /// Rows to the cache entries past … past + tokens − 1 of their sequence, and back.
    void (*store_rows)(const cache_params& params, int threads) = nullptr;
    void (*load_rows)(const cache_params& params, int threads) = nullptr;

    void (*attend)(const attend_params& params, int threads) = nullptr;

    /// cpu::rotate() and cpu::rerotate() of f32 in place.
    void (*rotate)(layout_kind layout, const tensor& q, const tensor& k, const Encoding& encoding,
                   const positions& positions, int threads) = nullptr;
    void (*rerotate)(layout_kind layout, const tensor& k, const Encoding& source, const Encoding& target,
                     const positions& positions, int threads) = nullptr;

    /// cpu::prepare() of f32 in place, for rotations of few tokens.
    ropewalk::cpu::prepared_rotation (*prepare)(layout_kind layout, const tensor& q, const tensor& k,
                                                const Encoding& encoding) = nullptr;
};

}  // namespace ropewalk::llama::cpu
