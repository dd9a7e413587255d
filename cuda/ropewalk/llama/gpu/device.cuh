// Launches of the kernels of a Llama's layers, and their public functions.
#pragma once

#include "ropewalk/gpu/launch.cuh"
#include "ropewalk/llama/gpu/blocks.hpp"
#include "ropewalk/llama/gpu/rows.hpp"
#include "ropewalk/llama/gpu/tokens.hpp"

namespace ropewalk::llama::gpu {

using ropewalk::gpu::options;

namespace detail {

template <class Body, class Params>
RW_HIDDEN __global__ void __launch_bounds__(ropewalk::gpu::detail::max_threads, Body::blocks_resident)
    kernel(const __grid_constant__ Params params) {
    ropewalk::gpu::detail::wait_for_previous();
    const std::int64_t index = ropewalk::gpu::detail::launch_index();
    if (index < params.threads) Body::template run<device_lanes, ropewalk::gpu::plain_access>(params, index);
}

/// Names and addresses of the memory of a call.
using memory_list = std::initializer_list<std::pair<std::string_view, const void*>>;

/// Launches the kernel of some parameters, unless it has no threads. Checks the memory if the options ask for it.
template <class Params>
RW_HIDDEN void run(const Params& params, const options& options, memory_list memory = {}) {
    using namespace ropewalk::gpu::detail;
    if (options.check_pointers)
        for (const auto& [name, pointer] : memory) check_pointer(name, pointer, current_device());
    if (params.threads == 0) return;
    const auto shape = shape_of_launch(params.threads, 0, shape_of_device(current_device()));
    with_body(params,
              [&]<class Body>(std::type_identity<Body>) { launch(&kernel<Body, Params>, params, shape, options); });
}

}  // namespace detail

/// y = x / √(mean(x²) + epsilon) · weight for every row; y may be x. Any element types. Throws ropewalk::error, with
/// nothing launched, if shapes do not fit.
RW_HIDDEN inline void rms_norm(const matrix_view& x, const matrix_view& weight, double epsilon, const matrix_view& y,
                               const options& options = {}) {
    detail::run(make_rms_norm(x, weight, epsilon, y), options,
                {{"x", x.data}, {"the norm's weight", weight.data}, {"y", y.data}});
}

/// out = gate / (1 + e^−gate) · up. Throws as rms_norm() does.
RW_HIDDEN inline void silu_multiply(const matrix_view& gate, const matrix_view& up, const matrix_view& out,
                                    const options& options = {}) {
    detail::run(make_silu(gate, up, out), options, {{"gate", gate.data}, {"up", up.data}, {"the output", out.data}});
}

/// Causal attention of queries [tokens, heads, head_dim] of ragged sequences over a cache that already holds their keys
/// and values: softmax(scale · q kᵀ) v for every row, in float32 and rounded once. Heads have at most 256 elements;
/// query heads may share key heads. The output may be q. Lengths are read from device memory only, so that a recorded
/// call serves a growing cache.
///
/// `splits` parts of the keys go to separate warps, with a workspace of attend_workspace_bytes(); splits_for() returns
/// the number that fills a device. Keys on missing pages are masked.
RW_HIDDEN inline void attend(const tensor& q, const tensor& out, const kv_cache& cache, const sequences& batch,
                             double scale, std::int64_t splits = 1, const workspace& space = {},
                             const options& options = {}) {
    const attend_plan plan = make_attend(q, out, cache, batch, scale, splits, space);
    detail::run(plan.attend, options,
                {{"q", q.data},
                 {"the output", out.data},
                 {"the cache of k", cache.k.data},
                 {"the cache of v", cache.v.data},
                 {"the scales of k", cache.k.scales},
                 {"the scales of v", cache.v.scales},
                 {"the page table", batch.pages.table},
                 {"the starts of sequences", batch.starts},
                 {"the pasts of sequences", batch.past},
                 {"the workspace", space.data}});
    detail::run(plan.merge, options);
}

/// Adds the tokens of a step to `past`, the pasts of its sequences.
RW_HIDDEN inline void advance(const sequences& batch, std::int64_t tokens, const cache_tensor& cache,
                              std::int32_t* past, const options& options = {}) {
    detail::run(make_advance(batch, tokens, cache, past), options);
}

}  // namespace ropewalk::llama::gpu
