// Plan of a re-encoding of cached keys: from the caller's arguments to a validated launch. Needs no CUDA.
#pragma once

#include "ropewalk/gpu/fused_plan.hpp"
#include "ropewalk/gpu/rerotate_cache_params.hpp"
#include "ropewalk/rotation/rerotate_cache_args.hpp"

namespace ropewalk::gpu {

using ropewalk::cached_tokens, ropewalk::rerotate_cache_args;

/// A validated re-encoding with its launch. Encodings must live until the launch, device memory until its end.
struct rerotate_cache_plan {
    cache_tensor keys{};
    rerotate_cache_kernel_base kernel{};
    launch_shape shape{};
};

namespace detail {

/// Returns whether addresses, strides and widths allow accesses of 16 bytes. Only an i8 cache has accesses outside the
/// rotary part.
inline bool allows_widest(const rerotate_cache_plan& plan) {
    const ropewalk::rotate_params& params = plan.kernel.rotation;
    const std::int64_t elements = 16 / size_of(plan.keys.type);
    const bool whole = plan.keys.type == cache_type::i8;
    return allows_vecs(whole ? plan.keys.head_dim : 2 * params.pairs, params.rotary_offset, params.pairs, elements) &&
           allows_vecs(plan.keys, elements);
}

/// The heads of a token in chunks of two vecs of v elements.
inline fused_heads make_cached_heads(const rerotate_cache_plan& plan, std::int64_t v) {
    const cache_tensor& keys = plan.keys;
    const ropewalk::rotate_params& params = plan.kernel.rotation;
    RW_EXPECTS(keys.heads <= (1 << 29) && keys.head_dim <= (1 << 30),
               "a launch supports at most 2^29 heads of at most 2^30 elements, got {} of {}", keys.heads,
               keys.head_dim);
    fused_heads heads;
    heads.heads = static_cast<std::int32_t>(keys.heads);
    heads.head_dim = static_cast<std::int32_t>(keys.head_dim);
    heads.rotary_offset = static_cast<std::int32_t>(params.rotary_offset);
    heads.pairs = static_cast<std::int32_t>(params.pairs);
    heads.rotating_chunks = static_cast<std::int32_t>(params.pairs / v);
    heads.chunks = heads.rotating_chunks;
    if (keys.type == cache_type::i8)
        heads.chunks += static_cast<std::int32_t>(divide_up(divide_up(keys.head_dim - 2 * params.pairs, 2), v));
    return heads;
}

inline void choose_rerotate_cache_launch(rerotate_cache_plan& plan, const cached_tokens& at,
                                         const device_shape& device) {
    const cache_tensor& keys = plan.keys;
    rerotate_cache_kernel_base& kernel = plan.kernel;
    const int size = static_cast<int>(size_of(keys.type));
    const bool wide = allows_widest(plan);
    kernel.keys = make_cached_heads(plan, rerotate_cache_elements(size, wide));
    kernel.cache = make_sink(keys, true);
    const std::int64_t lanes = divide_up(kernel.keys.chunks, rerotate_cache_chunks(size, wide));
    kernel.lanes = static_cast<std::int32_t>(lanes);
    if (keys.type == cache_type::i8) {
        RW_EXPECTS(lanes <= warp_lanes,
                   "a head of the i8 cache has {} elements; kernels support at most 1024, and 256 where addresses, "
                   "strides or widths do not allow accesses of 16 bytes",
                   keys.head_dim);
        kernel.lanes = static_cast<std::int32_t>(std::bit_ceil(static_cast<std::uint64_t>(lanes)));
    }
    const std::int64_t tokens = keys.elements() == 0 ? 0 : at.batch * at.tokens;
    kernel.tokens = at.tokens;
    set_groups(kernel.keys, heads_per_thread(tokens * kernel.lanes, {keys.heads}, device));
    if (tokens > 0) kernel.split = make_split(at.batch, at.tokens, kernel.keys.groups, kernel.lanes);
    kernel.steps = static_cast<std::int32_t>(divide_up(kernel.keys.heads_per_thread, rerotate_cache_heads));
    kernel.items = tokens * kernel.keys.groups;
    kernel.threads = divide_up(kernel.items * kernel.lanes, warp_lanes) * warp_lanes;
    plan.shape = shape_of_launch(kernel.threads, wide ? 16 : size, device);
}

}  // namespace detail

/// The rates of every re-encoding. A few bytes of parameters cost less than more kernels.
using rerotate_cache_rates = full_rates<max_pairs>;

/// Calls f(std::integral_constant<int, size>, std::bool_constant<wide>) with the template arguments of the kernel.
template <class F>
void with_rerotate_cache_kernel(const rerotate_cache_plan& plan, const F& f) {
    const auto choose = [&](auto size) {
        if (plan.shape.bytes == 16) return f(size, std::true_type{});
        f(size, std::false_type{});
    };
    if (size_of(plan.keys.type) == 4) return choose(std::integral_constant<int, 4>{});
    if (size_of(plan.keys.type) == 2) return choose(std::integral_constant<int, 2>{});
    choose(std::integral_constant<int, 1>{});
}

/// The parameter of the kernel that a plan launches.
inline rerotate_cache_kernel_params<rerotate_cache_rates> kernel_params(const rerotate_cache_plan& plan) {
    return {plan.kernel, rates_of<rerotate_cache_rates>(plan.kernel.rotation)};
}

/// Validates a re-encoding of cached keys and plans its launch.
inline rerotate_cache_plan make_rerotate_cache_plan(const rerotate_cache_args& args, const device_shape& device = {}) {
    const rerotate_cache_params params = make_rerotate_cache_params(
        args, memory_space::device, [](const rotate_args& rotation) { return detail::make_device_params(rotation); });
    rerotate_cache_plan plan{.keys = params.keys};
    plan.kernel.rotation = params.rotation, plan.kernel.slots = params.slots;
    detail::choose_rerotate_cache_launch(plan, args.at, device);
    return plan;
}

}  // namespace ropewalk::gpu
