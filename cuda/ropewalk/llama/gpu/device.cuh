// The kernels of attention on a device.
#pragma once

#include "ropewalk/gpu/launch.cuh"
#include "ropewalk/llama/gpu/attend_plan.hpp"
#include "ropewalk/llama/gpu/gather.hpp"
#include "ropewalk/llama/gpu/norm.hpp"
#include "ropewalk/llama/gpu/silu.hpp"

namespace ropewalk::llama::gpu {

using ropewalk::gpu::launch_shape, ropewalk::gpu::options;

namespace detail {

template <class Body, class Job>
RW_HIDDEN __global__ void __launch_bounds__(ropewalk::gpu::detail::max_threads, Body::blocks_resident)
    job_kernel(const __grid_constant__ Job job) {
    ropewalk::gpu::detail::wait_for_previous();
    const std::int64_t index = ropewalk::gpu::detail::launch_index();
    if (index < job.threads) Body::template run<device_lanes, plain_access>(job, index);
}

/// Launches a job, or does nothing where there is nothing to do.
template <class Job>
RW_HIDDEN void run(const Job& job, const options& chosen) {
    if (job.threads == 0) return;
    const launch_shape shape = ropewalk::gpu::detail::shape_of_launch(
        job.threads, 0, ropewalk::gpu::detail::shape_of_device(ropewalk::gpu::detail::current_device()));
    with_body(job,
              [&](auto body) { ropewalk::gpu::detail::launch(&job_kernel<decltype(body), Job>, job, shape, chosen); });
}

inline void check_pointers(const options& chosen, std::initializer_list<std::pair<std::string_view, const void*>> all) {
    if (!chosen.check_pointers) return;
    const int device = ropewalk::gpu::detail::current_device();
    for (const auto& [name, pointer] : all) ropewalk::gpu::detail::check_pointer(name, pointer, device);
}

}  // namespace detail

/// y = x / √(mean(x²) + epsilon) · weight of every row, in place where x and y agree. Any element types. Throws
/// ropewalk::error, with nothing launched, where shapes do not fit.
RW_HIDDEN inline void rms_norm(const matrix_view& x, const matrix_view& weight, double epsilon, const matrix_view& y,
                               const options& chosen = {}) {
    const rms_norm_job job = make_rms_norm(x, weight, epsilon, y);
    detail::check_pointers(chosen, {{"x", x.data}, {"the norm's weight", weight.data}, {"y", y.data}});
    detail::run(job, chosen);
}

/// out = gate / (1 + e^−gate) · up. Likewise.
RW_HIDDEN inline void silu_multiply(const matrix_view& gate, const matrix_view& up, const matrix_view& out,
                                    const options& chosen = {}) {
    const silu_job job = make_silu(gate, up, out);
    detail::check_pointers(chosen, {{"gate", gate.data}, {"up", up.data}, {"the output", out.data}});
    detail::run(job, chosen);
}

/// Causal attention of queries [tokens, heads, head_dim] of ragged sequences over a cache that already holds their keys
/// and values: row by row softmax(scale · q kᵀ) v, float32 throughout and rounded once. Heads of at most 256 elements;
/// heads of queries may share those of keys. The output may be q. Nothing is known of lengths but what device memory
/// holds, so a recorded call serves a growing cache.
///
/// `splits` parts of the keys go to warps of their own, which wants a workspace of attend_workspace_bytes(); how many
/// fill a device splits_for() says. Pages that do not exist count as keys that are not there.
RW_HIDDEN inline void attend(const tensor& q, const tensor& out, const kv_cache& cache, const page_table& pages,
                             const sequences& batch, double scale, std::int64_t splits = 1, const workspace& room = {},
                             const options& chosen = {}) {
    const attend_plan plan = make_attend(q, out, cache, pages, batch, scale, splits, room);
    detail::check_pointers(chosen, {{"q", q.data},
                                    {"the output", out.data},
                                    {"the cache of k", cache.k.data},
                                    {"the cache of v", cache.v.data},
                                    {"the scales of k", cache.k.scales},
                                    {"the scales of v", cache.v.scales},
                                    {"the page table", pages.table},
                                    {"the starts of sequences", batch.starts},
                                    {"the pasts of sequences", batch.past},
                                    {"the workspace", room.data}});
    detail::run(plan.attend, chosen);
    detail::run(plan.merge, chosen);
}

/// Adds the tokens of a step to the pasts of its sequences, which `past` is.
RW_HIDDEN inline void advance(const sequences& batch, std::int64_t tokens, const cache_tensor& cache,
                              const page_table& pages, std::int32_t* past, const options& chosen = {}) {
    detail::run(make_advance(batch, tokens, cache, pages, past), chosen);
}

}  // namespace ropewalk::llama::gpu
