// Plan of a fused call: from the caller's arguments to a validated launch. Needs no CUDA.
#pragma once

#include <bit>

#include "ropewalk/gpu/fused.hpp"
#include "ropewalk/gpu/fused_params.hpp"
#include "ropewalk/gpu/plan.hpp"
#include "ropewalk/rotation/fused_checks.hpp"

namespace ropewalk::gpu {

/// A validated fused call with its launch. The encoding must live until the launch, device memory until its end.
struct fused_plan {
    tensor v{}, v_out{};
    fusion with{};
    fused_kernel_base kernel{};
    bool norms = false;     ///< queries or keys are normed
    bool measures = false;  ///< a destination is int8
    bool converts = false;  ///< a destination has another type than the input
    launch_shape shape{};
};

namespace detail {

using ropewalk::detail::axes_of;

/// Checks that a warp holds a head of `head_dim` elements in chunks of two vecs of v elements.
inline void check_width(std::int64_t head_dim, int v) {
    RW_EXPECTS(head_dim <= 2 * max_pairs, "a head has {} elements, but fused kernels support at most {}", head_dim,
               2 * max_pairs);
    RW_EXPECTS(v > 1 || head_dim <= 2 * few_pairs,
               "fused kernels support heads wider than {} only in accesses of 16 bytes, which the addresses, strides "
               "or widths of this call of head_dim {} do not allow",
               2 * few_pairs, head_dim);
}

/// Returns whether chunks of two vecs of `elements` divide a head.
inline bool allows_vecs(std::int64_t head_dim, std::int64_t rotary_offset, std::int64_t pairs, std::int64_t elements) {
    return pairs % elements == 0 && rotary_offset % elements == 0 && (head_dim - 2 * pairs) % (2 * elements) == 0;
}

inline bool allows_vecs(const cache_tensor& cache, std::int64_t elements) {
    const std::int64_t size = size_of(cache.type);
    return !cache.exists() || is_aligned(axes_of(cache), cache.data, size, std::min<std::int64_t>(elements * size, 16));
}

inline bool allows_vecs(const head_norm& norm, std::int64_t elements) {
    const std::size_t bytes = std::min<std::size_t>(static_cast<std::size_t>(elements) * size_of(norm.type), 16);
    return reinterpret_cast<std::uintptr_t>(norm.weight) % bytes == 0;
}

/// Returns whether every address, stride and width allows accesses of 16 bytes.
inline bool allows_widest(const fused_plan& plan) {
    const ropewalk::rotate_params& params = plan.kernel.rotation;
    const std::int64_t elements = 16 / static_cast<std::int64_t>(size_of(params.any().type));
    for (const tensor* t : {&params.q_in, &params.q_out, &params.k_in, &params.k_out, &plan.v, &plan.v_out})
        if (!allows_access(*t, 16)) return false;
    return allows_vecs(params.any().head_dim, params.rotary_offset, params.pairs, elements) &&
           (!plan.v.exists() || allows_vecs(plan.v.head_dim, 0, 0, elements)) &&
           allows_vecs(plan.with.cache.k, elements) && allows_vecs(plan.with.cache.v, elements) &&
           allows_vecs(plan.with.quantised.q, elements) && allows_vecs(plan.with.quantised.k, elements) &&
           allows_vecs(plan.with.quantised.v, elements) && allows_vecs(plan.with.q_norm, elements) &&
           allows_vecs(plan.with.k_norm, elements);
}

inline cache_sink make_sink(const cache_tensor& cache, bool by_slot) {
    return {.data = cache.data,
            .type = cache.type,
            .by_slot = by_slot,
            .stride_page = cache.stride_page,
            .stride_token = cache.stride_token,
            .stride_head = cache.stride_head,
            .scale = cache.scale,
            .inverse_scale = 1 / cache.scale,
            .scale_at = is_f8(cache.type) ? cache.scale_at : nullptr,
            .scales = cache.scales,
            .scale_stride_page = cache.scale_stride_page,
            .scale_stride_token = cache.scale_stride_token,
            .scale_stride_head = cache.scale_stride_head};
}

inline cache_sink make_sink(const tensor& out, const tensor& in) {
    return {.data = out.data,
            .type = cache_type_of(out.type),
            .in_place = out.data == in.data,
            .stride_page = out.stride_batch,
            .stride_token = out.stride_token,
            .stride_head = out.stride_head};
}

inline norm_params make_norm(const head_norm& norm, std::int64_t head_dim) {
    return {.weight = norm.weight,
            .type = norm.type,
            .epsilon = static_cast<float>(norm.epsilon),
            .shift = norm.one_plus ? 1.0F : 0.0F,
            .reciprocal_dim = 1 / static_cast<float>(head_dim)};
}

/// The heads of one side, in chunks of two vecs of v elements.
inline fused_heads make_side(const tensor& in, const tensor& out, const cache_tensor& quantised,
                             const cache_tensor& cache, std::int64_t rotary_offset, std::int64_t pairs,
                             std::int64_t v) {
    fused_heads side;
    if (!in.exists() || in.elements() == 0) return side;
    const std::int64_t rotating = pairs / v, rest = divide_up(divide_up(in.head_dim - 2 * pairs, 2), v);
    static_cast<heads_params&>(side) = make_heads(in, {}, 1);
    int sinks = 0;
    if (out.exists()) side.sinks[sinks++] = make_sink(out, in);
    if (quantised.exists()) side.sinks[sinks++] = make_sink(quantised, false);
    if (cache.exists()) side.sinks[sinks] = make_sink(cache, true);
    // check_width() limits heads to 1024 elements.
    side.head_dim = static_cast<std::int32_t>(in.head_dim);
    side.rotary_offset = static_cast<std::int32_t>(rotary_offset), side.pairs = static_cast<std::int32_t>(pairs);
    side.rotating_chunks = static_cast<std::int32_t>(rotating);
    side.chunks = static_cast<std::int32_t>(rotating + rest);
    return side;
}

/// The capacity in pairs of the kernel of a call: at least half of its widest head.
inline int capacity_of(const fused_plan& plan) {
    const bool plain = !plan.kernel.rotation.has_magnitude || plan.shape.bytes < 16;
    const std::int64_t widest = std::max(plan.kernel.rotation.any().head_dim, plan.v.exists() ? plan.v.head_dim : 0);
    return plain && widest <= 2 * few_pairs ? few_pairs : max_pairs;
}

/// Lanes per head: enough for the side with the most chunks, and a power of two where lanes reduce values.
inline std::int32_t lanes_per_head(const fused_plan& plan, int lane_chunks) {
    std::int64_t lanes = 1;
    for (const fused_heads& side : plan.kernel.side) lanes = std::max(lanes, divide_up(side.chunks, lane_chunks));
    const bool reduces = plan.norms || plan.measures;
    if (reduces) return static_cast<std::int32_t>(std::bit_ceil(static_cast<std::uint64_t>(lanes)));
    return static_cast<std::int32_t>(lanes);
}

/// Fills in the heads of every side with their norms and destinations.
inline void set_sides(fused_plan& plan, std::int64_t v) {
    const ropewalk::rotate_params& params = plan.kernel.rotation;
    const fusion& with = plan.with;
    fused_kernel_base& kernel = plan.kernel;
    kernel.side[0] = make_side(params.q_in, params.q_out, with.quantised.q, {}, params.rotary_offset, params.pairs, v);
    kernel.side[1] =
        make_side(params.k_in, params.k_out, with.quantised.k, with.cache.k, params.rotary_offset, params.pairs, v);
    kernel.side[2] = make_side(plan.v, plan.v_out, with.quantised.v, with.cache.v, 0, 0, v);
    kernel.side[0].norm = make_norm(with.q_norm, params.any().head_dim);
    kernel.side[1].norm = make_norm(with.k_norm, params.any().head_dim);
    plan.norms = with.q_norm.weight != nullptr || with.k_norm.weight != nullptr;
    for (fused_heads& side : kernel.side) {
        for (const cache_sink& sink : side.sinks) {
            if (sink.data == nullptr) continue;
            side.measures = side.measures || sink.type == cache_type::i8;
            plan.converts = plan.converts || sink.type != cache_type_of(params.any().type);
        }
        plan.measures = plan.measures || side.measures;
    }
}

inline void choose_fused_launch(fused_plan& plan, const device_shape& device) {
    const ropewalk::rotate_params& params = plan.kernel.rotation;
    fused_kernel_base& kernel = plan.kernel;
    const auto size = static_cast<int>(size_of(params.any().type));
    plan.shape.bytes = allows_widest(plan) ? 16 : size;
    const int v = plan.shape.bytes / size, capacity = capacity_of(plan), heads_in_flight = heads_at_once(v, capacity);
    check_width(params.any().head_dim, v), check_width(plan.v.exists() ? plan.v.head_dim : 0, v);
    kernel.tokens = params.tokens();
    set_sides(plan, v);
    kernel.lanes = lanes_per_head(plan, chunks_per_lane(v, capacity));
    // Extents of tensors without elements may be any numbers.
    const bool empty = heads_of(params.q_in) == 0 && heads_of(params.k_in) == 0 && heads_of(plan.v) == 0;
    const std::int64_t tokens = empty ? 0 : params.batch() * params.tokens();
    const std::int64_t max_heads = heads_per_thread(
        tokens * kernel.lanes, {kernel.side[0].heads, kernel.side[1].heads, kernel.side[2].heads}, device);
    for (int i = 0; i < 3; ++i) {
        fused_heads& side = kernel.side[i];
        set_groups(side, max_heads);
        kernel.first_group[i] = kernel.groups;
        kernel.groups += side.groups;
        kernel.steps =
            std::max(kernel.steps, static_cast<std::int32_t>(divide_up(side.heads_per_thread, heads_in_flight)));
    }
    if (!empty) kernel.split = make_split(params.batch(), kernel.tokens, kernel.groups, kernel.lanes);
    kernel.items = tokens * kernel.groups;
    kernel.threads = divide_up(kernel.items * kernel.lanes, warp_lanes) * warp_lanes;
    plan.shape = shape_of_launch(kernel.threads, plan.shape.bytes, device);
}

}  // namespace detail

/// Template arguments of a fused kernel. Its parts are two arguments, because nvcc 13 cannot name a kernel whose
/// template arguments contain a structure.
template <class R, int B, bool Norms, bool Converts>
struct fused_kernel_kind {
    using Rates = R;
    static constexpr int bytes = B;
    static constexpr bool norms = Norms, converts = Converts;
    static constexpr fused_parts parts{.norms = Norms, .converts = Converts};
};

/// Calls f(fused_kernel_kind) with the template arguments of the kernel. `Used` are the parts that the plans of the
/// caller may have. Kernels for the widest accesses and heads of at most 256 elements have only the parts of the plan.
/// Two more kernels per type and layout serve the other calls: the widest accesses for xPos and wider heads, and single
/// elements.
template <Element T, fused_parts Used = fused_parts{}, class F>
void with_fused_kernel(const fused_plan& plan, const F& f) {
    if (plan.shape.bytes < 16)
        return f(fused_kernel_kind<full_rates<few_pairs>, static_cast<int>(sizeof(T)), true, true>{});
    if (detail::capacity_of(plan) != few_pairs) return f(fused_kernel_kind<full_rates<max_pairs>, 16, true, true>{});
    const auto run = [&]<bool Norms, bool Converts>() {
        f(fused_kernel_kind<plain_rates<few_pairs>, 16, Norms, Converts>{});
    };
    if constexpr (Used.norms && Used.converts) {
        if (plan.norms && plan.converts) return run.template operator()<true, true>();
    }
    if constexpr (Used.converts) {
        if (plan.converts) return run.template operator()<false, true>();
    }
    if constexpr (Used.norms) {
        if (plan.norms) return run.template operator()<true, false>();
    }
    run.template operator()<false, false>();
}

/// The parameter of the kernel that a plan launches.
template <class Rates>
fused_kernel_params<Rates> kernel_params(const fused_plan& plan) {
    return {plan.kernel, rates_of<Rates>(plan.kernel.rotation)};
}

/// Validates a fused call and plans its launch. In place where input and output are the same; keys and values that go
/// to a cache need no output.
inline fused_plan make_fused_plan(const fused_args& args, const device_shape& device = {}) {
    const fused_params params = make_fused_params(
        args, memory_space::device, [](const rotate_args& rotation) { return detail::make_device_params(rotation); });
    fused_plan plan{.v = params.v_in, .v_out = params.v_out, .with = params.with};
    plan.kernel.rotation = params.rotation, plan.kernel.slots = params.slots;
    detail::choose_fused_launch(plan, device);
    return plan;
}

/// The plan of a fused call on views.
template <class T>
fused_plan make_fused_plan(layout_kind layout, const qkv<const T>& in, const qkv<T>& out, const fusion& with,
                           const Encoding& encoding, const positions& positions, const options& options,
                           const device_shape& device = {}) {
    fused_args args = make_fused_args<T>(layout, in, out, with, encoding, positions, options.table);
    args.rotation.direction = options.direction;
    return make_fused_plan(args, detail::with_heads_of(options, device));
}

}  // namespace ropewalk::gpu
