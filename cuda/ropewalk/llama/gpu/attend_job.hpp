// What the attention kernels take: plain data by value.
#pragma once

#include "ropewalk/llama/gpu/sequences.hpp"

namespace ropewalk::llama::gpu {

/// Queries [tokens, heads, head_dim] and the output, or partial results of the splits of their keys.
///
/// A row is a query head of a token. The rows of a sequence which share a key head are numbered token by token, so that
/// the rows of a tile share keys whether there are more tokens or more heads. A warp has one tile of rows, one key head
/// and one split of the keys; tiles are the innermost, then splits, key heads and sequences.
struct attend_job : job_threads {
    const void* q = nullptr;
    void* out = nullptr;
    element_type type = element_type::f32;
    std::int64_t q_token = 0, q_head = 0, out_token = 0, out_head = 0;  ///< elements

    float* sums = nullptr;    ///< [tokens, heads, splits, head_dim], where there are several splits
    float* states = nullptr;  ///< [tokens, heads, splits, 2]: the maximum and the total

    cache_source k, v;
    slot_reader pages;
    sequence_source batch;

    float scale = 1;                                   ///< of the scores, log2 e and the scale of keys included
    std::int32_t heads = 0, kv_heads = 0, shared = 1;  ///< query heads that share a key head
    std::int32_t head_dim = 0;
    std::int32_t lanes = 1;  ///< of a key
    std::int32_t rows = 1;   ///< of a tile: which kernel
    std::int32_t splits = 1;
    std::int64_t tiles = 0;  ///< of a sequence
    bool wide = false;
};

/// The kernel that puts splits together: a thread has lane_elements of a row.
struct merge_job : job_threads {
    const float* sums = nullptr;
    const float* states = nullptr;
    void* out = nullptr;
    element_type type = element_type::f32;
    std::int64_t out_token = 0, out_head = 0;
    sequence_source batch;
    float v_scale = 1;
    std::int32_t heads = 0, head_dim = 0, splits = 1, runs = 1;
    bool wide = false;
};

}  // namespace ropewalk::llama::gpu
