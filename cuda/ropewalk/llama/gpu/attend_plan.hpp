// From the arguments of an attention call to checked launches. Runs on the host and needs no CUDA.
#pragma once

#include <bit>
#include <cmath>

#include "ropewalk/gpu/fused_plan.hpp"
#include "ropewalk/llama/gpu/attend_body.hpp"

namespace ropewalk::llama::gpu {

using ropewalk::gpu::device_shape;

/// Device memory which a call may use as it likes until the stream has passed it. Aligned to 256 bytes.
struct workspace {
    void* data = nullptr;
    std::int64_t bytes = 0;
};

/// A checked call: its kernel, and behind it one which puts splits together, where there are several.
struct attend_plan {
    attend_job attend;
    merge_job merge;  ///< no threads where there is one split
};

namespace detail {

/// Lanes of a key: a power of two, so that groups fill a warp.
inline std::int32_t lanes_of_head(std::int64_t head_dim) {
    return static_cast<std::int32_t>(
        std::bit_ceil(static_cast<std::uint64_t>(ropewalk::gpu::detail::divide_up(head_dim, lane_elements))));
}

/// Whether lanes reach their elements of a cache at once.
inline bool takes_wide(const cache_tensor& cache) {
    return cache.head_dim % lane_elements == 0 && ropewalk::gpu::detail::allows_vecs(cache, lane_elements);
}

/// Query rows that a warp compares with every key: as many as there are to share it.
inline std::int32_t rows_of_tile(bool wide, const sequences& batch, std::int64_t shared) {
    return wide && batch.most_tokens * shared > 1 ? 4 : 1;
}

inline std::int64_t tiles_of(const sequences& batch, std::int64_t shared, std::int32_t rows) {
    return ropewalk::gpu::detail::divide_up(batch.most_tokens * shared, rows);
}

}  // namespace detail

namespace detail {

/// Numbers of the states of all splits, in whole accesses of 16 bytes.
constexpr std::int64_t state_numbers(std::int64_t tokens, std::int64_t heads, std::int64_t splits) {
    return ropewalk::gpu::detail::divide_up(splits * tokens * heads, 2) * 4;
}

}  // namespace detail

/// What splits of keys take beside the output: head_dim + 2 numbers for each row and split.
constexpr std::int64_t attend_workspace_bytes(std::int64_t tokens, std::int64_t heads, std::int64_t head_dim,
                                              std::int64_t splits) {
    if (splits <= 1) return 0;
    return (detail::state_numbers(tokens, heads, splits) + splits * tokens * heads * head_dim) *
           static_cast<std::int64_t>(sizeof(float));
}

/// Parts into which the keys are split so that the warps fill a device, each part of 128 keys at least. Depends on what
/// the host knows alone: a recorded launch keeps it.
inline std::int64_t splits_for(const sequences& batch, std::int64_t heads, std::int64_t kv_heads,
                               std::int64_t most_keys, const device_shape& device) {
    const std::int64_t shared = heads / kv_heads;
    const std::int64_t warps =
        std::max<std::int64_t>(1, batch.count * kv_heads * detail::tiles_of(batch, shared, shared > 1 ? 4 : 1));
    // A quarter of the warps that a device has room for; registers leave no more.
    const std::int64_t room = std::int64_t{device.multiprocessors} * device.threads_per_multiprocessor / warp_lanes / 4;
    return std::clamp<std::int64_t>(room / warps, 1, std::max<std::int64_t>(1, most_keys / 128));
}

namespace detail {

inline void check_attention(const tensor& q, const tensor& out, const kv_cache& cache, const page_table& pages,
                            const sequences& batch, double scale) {
    using ropewalk::detail::shape_of;
    using ropewalk::gpu::detail::shape_of;
    ropewalk::detail::check_tensor("q", q, q.head_dim);
    ropewalk::detail::check_tensor("the output", out, q.head_dim);
    ropewalk::detail::check_output("q", q, out);
    RW_EXPECTS(q.batch == 1, "{} must have a batch of 1: its tokens are those of all sequences", shape_of("q", q));
    RW_EXPECTS(cache.k.exists() && cache.v.exists(), "attention needs a cache of keys and one of values");
    const tensor heads{nullptr, q.type, 1, 1, cache.k.heads, q.head_dim};
    ropewalk::gpu::detail::check_cache("the cache of k", cache.k, heads);
    ropewalk::gpu::detail::check_cache("the cache of v", cache.v, heads);
    RW_EXPECTS(cache.k.heads > 0 && q.heads % cache.k.heads == 0, "{} query heads cannot share {} key heads", q.heads,
               cache.k.heads);
    RW_EXPECTS(cache.k.type == cache.v.type && cache.k.pages == cache.v.pages && cache.k.page_size == cache.v.page_size,
               "keys and values must have the same type and pages, got {} and {}", shape_of("the cache of k", cache.k),
               shape_of("the cache of v", cache.v));
    RW_EXPECTS(q.head_dim <= widest_head, "a head of {} elements is wider than the {} that attention takes", q.head_dim,
               widest_head);
    RW_EXPECTS(std::isfinite(scale), "the scale of the scores must be a number, got {}", scale);
    // Kernels keep the places of keys in 32 bits.
    RW_EXPECTS(std::max(cache.k.pages, cache.k.page_size) < std::int64_t{1} << 31,
               "pages and their tokens must be fewer than 2^31, got {}", shape_of("the cache of k", cache.k));
    check_batch(batch, pages, cache.k, q.tokens);
    for (const cache_tensor* const one : {&cache.k, &cache.v})
        RW_EXPECTS(!ropewalk::gpu::detail::range_of(out).overlaps(ropewalk::gpu::detail::range_of(*one)),
                   "the output overlaps a cache: {}", shape_of("the cache", *one));
}

/// The partial results in a workspace: states, then sums.
inline void set_splits(attend_plan& made, const tensor& q, std::int64_t splits, const workspace& room) {
    const std::int64_t wanted = attend_workspace_bytes(q.tokens, q.heads, q.head_dim, splits);
    RW_EXPECTS(splits >= 1 && splits <= 1 << 16, "keys are split into 1 to 65536 parts, got {}", splits);
    RW_EXPECTS(room.bytes >= wanted && (room.data != nullptr || wanted == 0),
               "{} splits of {} tokens want a workspace of {} bytes, got {}", splits, q.tokens, wanted, room.bytes);
    RW_EXPECTS(reinterpret_cast<std::uintptr_t>(room.data) % 16 == 0 || wanted == 0,
               "the workspace at {} is not aligned", room.data);
    made.attend.splits = static_cast<std::int32_t>(splits);
    if (splits == 1) return;
    made.attend.states = static_cast<float*>(room.data);
    made.attend.sums = made.attend.states + state_numbers(q.tokens, q.heads, splits);
    const attend_job& job = made.attend;
    merge_job& merge = made.merge;
    merge.sums = job.sums, merge.states = job.states, merge.out = job.out, merge.type = job.type;
    merge.out_token = job.out_token, merge.out_head = job.out_head, merge.batch = job.batch;
    merge.v_scale = job.v.scale, merge.heads = job.heads, merge.head_dim = job.head_dim, merge.splits = job.splits;
    merge.runs = static_cast<std::int32_t>(ropewalk::gpu::detail::divide_up(q.head_dim, lane_elements));
    merge.wide = job.wide;
    merge.threads = threads_of_items(q.tokens * q.heads * merge.runs);
}

}  // namespace detail

/// Checks and plans causal attention of queries [tokens, heads, head_dim] over a cache which already holds the keys and
/// values of these tokens: softmax(scale · q kᵀ) v, row by row, in float32 and rounded once. The output may be q.
inline attend_plan make_attend(const tensor& q, const tensor& out, const kv_cache& cache, const page_table& pages,
                               const sequences& batch, double scale, std::int64_t splits = 1,
                               const workspace& room = {}) {
    detail::check_attention(q, out, cache, pages, batch, scale);
    attend_plan made;
    if (q.elements() == 0 || batch.count == 0 || batch.most_tokens == 0) return made;
    attend_job& job = made.attend;
    job.q = q.data, job.out = out.data, job.type = q.type;
    job.q_token = q.stride_token, job.q_head = q.stride_head;
    job.out_token = out.stride_token, job.out_head = out.stride_head;
    job.k = detail::source_of(cache.k), job.v = detail::source_of(cache.v);
    job.pages = detail::source_of(cache.k, pages, batch.count);
    job.batch = detail::source_of(batch, q.tokens, detail::capacity_of(cache.k, pages));
    job.scale = static_cast<float>(scale * static_cast<double>(job.k.scale) * 1.44269504088896340736);
    job.heads = static_cast<std::int32_t>(q.heads), job.kv_heads = static_cast<std::int32_t>(cache.k.heads);
    job.shared = job.heads / job.kv_heads, job.head_dim = static_cast<std::int32_t>(q.head_dim);
    job.lanes = detail::lanes_of_head(q.head_dim);
    job.wide = ropewalk::gpu::detail::allows_access(q, 16) && ropewalk::gpu::detail::allows_access(out, 16) &&
               detail::takes_wide(cache.k) && detail::takes_wide(cache.v);
    job.rows = detail::rows_of_tile(job.wide, batch, job.shared);
    job.tiles = detail::tiles_of(batch, job.shared, job.rows);
    detail::set_splits(made, q, splits, room);
    job.threads = threads_of_warps(job.tiles * job.splits * job.kv_heads * batch.count);
    return made;
}

}  // namespace ropewalk::llama::gpu
