// Re-encoding of cached keys in place on a GPU, in any type of caches.
#pragma once

#include "ropewalk/core/compiler.hpp"
#include "ropewalk/gpu/launch.cuh"
#include "ropewalk/gpu/rerotate_cache_body.hpp"
#include "ropewalk/gpu/rerotate_cache_plan.hpp"

namespace ropewalk::gpu {

namespace detail {

/// Runs whole warps to the end: threads and blocks are multiples of a warp.
template <int Size, Layout L, bool Wide>
RW_HIDDEN __global__ void __launch_bounds__(max_threads)
    rerotate_cache_kernel(const __grid_constant__ rerotate_cache_kernel_params<rerotate_cache_rates> params) {
    start_next();
    const std::int64_t index = launch_index();
    if (index < params.threads)
        run_lanes<device_lane>(rerotate_cache_body<Size, L, Wide, rerotate_cache_rates>{params}, index);
}

inline void check_pointers(const rerotate_cache_plan& plan, int device) {
    const slot_reader& slots = plan.kernel.slots;
    check_pointers(plan.kernel.rotation, device);
    check_pointer("the cache of k", plan.keys.data, device);
    check_pointer("the scales of k", plan.keys.scales, device);
    check_pointer("the scale of k", plan.keys.scale_at, device);
    check_pointer("the entries of the cache", slots.entries.data, device);
    check_pointer("the page table", slots.table, device);
    check_pointer("the starts of the page lists", slots.starts, device);
    check_pointer("the lengths of the last pages", slots.last_page_len, device);
    check_pointer("the slot mapping", slots.mapping, device);
}

/// Launches a plan; does nothing where it has no threads.
template <Layout L>
RW_HIDDEN void run(const rerotate_cache_plan& plan, int device, const options& options) {
    if (plan.shape.threads == 0) return;
    if (options.check_pointers) check_pointers(plan, device);
    with_rerotate_cache_kernel(plan, [&](auto size, auto wide) {
        launch(&rerotate_cache_kernel<size(), L, wide()>, kernel_params(plan), plan.shape, options);
    });
}

}  // namespace detail

/// Re-encodes cached keys in place, in one launch on the current device: those of token t lie in its slot of the cache,
/// were encoded by `source` at source_positions[t], and become those of `target` at target_positions[t]. Source and
/// target may be one encoding. Every element is read and written at most once. Arithmetic is float32 with the exact
/// difference of both phases, as in rerotate().
///
/// Elements outside the rotary part stay as they are. In an i8 cache, where each head gets a new scale, they are
/// rounded again: each element of a head, rotated or not, is within m / 254 of its exact value, m the largest magnitude
/// of the new head. In an f8 cache the scale stays, and results beyond the largest number saturate.
///
/// All arguments are in device memory and must live until the launch has run. Throws ropewalk::error, with nothing
/// launched, where shapes, strides, pointers, slots or layout do not fit, as far as the host knows. Tokens whose slot
/// lies outside the cache are skipped. No two tokens may have the same slot. An int8 head has at most 1024 elements,
/// and at most 256 without 16-byte accesses.
template <Layout L>
RW_HIDDEN void rerotate_cache(const cache_tensor& keys, const cached_tokens& at, const Encoding& source,
                              const positions& source_positions, const Encoding& target,
                              const positions& target_positions, const options& options = {}) {
    RW_EXPECTS(options.direction == direction::forward && !options.table.exists(),
               "rerotate_cache supports neither directions nor tables; exchange the encodings to go back");
    // A named object: in a template, nvcc 13 cannot compile a braced argument with designators.
    rerotate_cache_args args;
    args.layout = kind_of<L>, args.keys = keys, args.at = at;
    args.source = &source, args.source_positions = source_positions;
    args.target = &target, args.target_positions = target_positions;
    const int device = detail::current_device();
    detail::run<L>(make_rerotate_cache_plan(args, detail::shape_of_device(device)), device, options);
}

}  // namespace ropewalk::gpu
