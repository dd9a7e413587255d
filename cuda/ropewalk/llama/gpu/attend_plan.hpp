// Launch plan of decode attention: checks, splits of the keys, and kernel parameters. Needs no CUDA.
#pragma once

#include <bit>
#include <cmath>

#include "ropewalk/gpu/fused_plan.hpp"
#include "ropewalk/llama/gpu/attend_body.hpp"

namespace ropewalk::llama::gpu {

/// Device memory for a call's intermediate results, until the stream has passed the call. Aligned to 256 bytes.
struct workspace {
    void* data = nullptr;
    std::int64_t bytes = 0;
};

/// The kernel of a checked call, and the kernel that merges its splits.
struct attend_plan {
    attend_params attend;
    merge_params merge;  ///< no threads if there is one split
};

namespace detail {

/// Lanes per key: a power of two, so that groups fill a warp.
inline std::int32_t lanes_of_head(std::int64_t head_dim) {
    return static_cast<std::int32_t>(
        std::bit_ceil(static_cast<std::uint64_t>(detail::divide_up(head_dim, lane_elements))));
}

/// Returns whether wide accesses reach the elements of every lane in a cache.
inline bool allows_wide(const cache_tensor& cache) {
    return cache.head_dim % lane_elements == 0 && ropewalk::gpu::detail::allows_vecs(cache, lane_elements);
}

inline std::int64_t tiles_of(const sequences& batch, std::int64_t shared, std::int32_t rows) {
    return detail::divide_up(batch.most_tokens * shared, rows);
}

/// Floats of the states of all splits, in whole accesses of 16 bytes.
constexpr std::int64_t state_floats(std::int64_t tokens, std::int64_t heads, std::int64_t splits) {
    return detail::divide_up(splits * tokens * heads, 2) * 4;
}

}  // namespace detail

/// Bytes of the workspace for splits: head_dim + 2 floats per row and split, and none for one split.
constexpr std::int64_t attend_workspace_bytes(std::int64_t tokens, std::int64_t heads, std::int64_t head_dim,
                                              std::int64_t splits) {
    if (splits <= 1) return 0;
    return (detail::state_floats(tokens, heads, splits) + splits * tokens * heads * head_dim) *
           static_cast<std::int64_t>(sizeof(float));
}

/// The number of splits of the keys with which the warps fill a device, at least 128 keys each. Depends only on values
/// that the host knows, so that a recorded launch keeps it.
inline std::int64_t splits_for(const sequences& batch, std::int64_t heads, std::int64_t kv_heads,
                               std::int64_t most_keys, const ropewalk::gpu::device_shape& device) {
    const std::int64_t shared = heads / kv_heads;
    const std::int64_t warps =
        std::max<std::int64_t>(1, batch.count * kv_heads * detail::tiles_of(batch, shared, shared > 1 ? 4 : 1));
    // The registers leave room for a quarter of the warps of a device.
    const std::int64_t room = std::int64_t{device.multiprocessors} * device.threads_per_multiprocessor / warp_lanes / 4;
    return std::clamp<std::int64_t>(room / warps, 1, std::max<std::int64_t>(1, most_keys / 128));
}

namespace detail {

inline void check_attention(const tensor& q, const tensor& out, const kv_cache& cache, const sequences& batch,
                            double scale) {
    using ropewalk::detail::shape_of, ropewalk::detail::range_of;
    ropewalk::detail::check_tensor("q", q, q.head_dim);
    ropewalk::detail::check_tensor("the output", out, q.head_dim);
    ropewalk::detail::check_output("q", q, out);
    RW_EXPECTS(q.batch == 1, "{} must have a batch of 1 that holds the tokens of all sequences", shape_of("q", q));
    RW_EXPECTS(cache.k.exists() && cache.v.exists(), "attention needs a cache of keys and one of values");
    const tensor heads{.type = q.type, .tokens = 1, .heads = cache.k.heads, .head_dim = q.head_dim};
    ropewalk::detail::check_cache("the cache of k", cache.k, heads);
    ropewalk::detail::check_cache("the cache of v", cache.v, heads);
    RW_EXPECTS(cache.k.heads > 0 && q.heads % cache.k.heads == 0, "{} query heads cannot share {} key heads", q.heads,
               cache.k.heads);
    RW_EXPECTS(cache.k.type == cache.v.type && cache.k.pages == cache.v.pages && cache.k.page_size == cache.v.page_size,
               "keys and values must have the same type and pages, got {} and {}", shape_of("the cache of k", cache.k),
               shape_of("the cache of v", cache.v));
    RW_EXPECTS(q.head_dim <= widest_head, "head_dim {} exceeds the limit {} of attention", q.head_dim, widest_head);
    RW_EXPECTS(std::isfinite(scale), "the scale of the scores must be finite, got {}", scale);
    // Kernels keep the slots of keys in 32 bits.
    RW_EXPECTS(std::max(cache.k.pages, cache.k.page_size) < std::int64_t{1} << 31,
               "pages and their tokens must be fewer than 2^31, got {}", shape_of("the cache of k", cache.k));
    check_batch(batch, cache.k, q.tokens);
    for (const cache_tensor* const tensor : {&cache.k, &cache.v})
        RW_EXPECTS(!range_of(out).overlaps(range_of(*tensor)), "the output overlaps a cache: {}",
                   shape_of("the cache", *tensor));
}

/// Plans the partial results in a workspace (states, then sums) and their merge.
inline void set_splits(attend_plan& plan, std::int64_t splits, const workspace& space) {
    const tensor& q = plan.attend.q;
    const std::int64_t bytes = attend_workspace_bytes(q.tokens, q.heads, q.head_dim, splits);
    RW_EXPECTS(splits >= 1 && splits <= 1 << 16, "splits must be in [1, 65536], got {}", splits);
    RW_EXPECTS(space.bytes >= bytes && (space.data != nullptr || bytes == 0),
               "{} splits of {} tokens need a workspace of {} bytes, got {}", splits, q.tokens, bytes, space.bytes);
    RW_EXPECTS(reinterpret_cast<std::uintptr_t>(space.data) % 16 == 0 || bytes == 0,
               "the workspace at {} is not aligned to 16 bytes", space.data);
    plan.attend.splits = static_cast<std::int32_t>(splits);
    if (splits == 1) return;
    plan.attend.states = static_cast<float*>(space.data);
    plan.attend.sums = plan.attend.states + state_floats(q.tokens, q.heads, splits);
    plan.merge = {plan.attend};
    plan.merge.set_chunks(q.tokens * q.heads, q.head_dim);
}

}  // namespace detail

/// Checks and plans causal attention of queries [tokens, heads, head_dim] over a cache that already holds the keys and
/// values of these tokens: softmax(scale · q kᵀ) v for every row, in float32 and rounded once. The output may be q.
inline attend_plan make_attend(const tensor& q, const tensor& out, const kv_cache& cache, const sequences& batch,
                               double scale, std::int64_t splits = 1, const workspace& space = {}) {
    using detail::allows_access;
    detail::check_attention(q, out, cache, batch, scale);
    attend_plan plan;
    if (q.elements() == 0 || batch.count == 0 || batch.most_tokens == 0) return plan;
    attend_params& params = plan.attend;
    params.q = q, params.out = out;
    params.k = detail::with_factor(cache.k), params.v = detail::with_factor(cache.v);
    params.batch = detail::reader_of(batch, q.tokens, cache.k);
    params.scale = static_cast<float>(scale * static_cast<double>(params.k.scale) * 1.44269504088896340736);
    params.heads = static_cast<std::int32_t>(q.heads), params.kv_heads = static_cast<std::int32_t>(cache.k.heads);
    params.shared = params.heads / params.kv_heads, params.head_dim = static_cast<std::int32_t>(q.head_dim);
    params.lanes = detail::lanes_of_head(q.head_dim);
    params.wide =
        allows_access(q, 16) && allows_access(out, 16) && detail::allows_wide(cache.k) && detail::allows_wide(cache.v);
    // A warp compares several query rows with every key if there are several.
    params.rows = params.wide && batch.most_tokens * params.shared > 1 ? 4 : 1;
    params.tiles = detail::tiles_of(batch, params.shared, params.rows);
    detail::set_splits(plan, splits, space);
    params.set_warps(params.tiles * params.splits * params.kv_heads * batch.count);
    return plan;
}

}  // namespace ropewalk::llama::gpu
