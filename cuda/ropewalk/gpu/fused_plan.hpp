// From the arguments of a fused call to a checked launch. Runs on the host and needs no CUDA.
#pragma once

#include "ropewalk/gpu/fused_checks.hpp"
#include "ropewalk/gpu/plan.hpp"

namespace ropewalk::gpu {

/// A checked fused call with its launch. The encoding must live until the launch, device memory until its end.
struct fused_plan {
    ropewalk::rotate_params work;  ///< of q and k; an absent output of k is k itself
    tensor v, v_out;
    fusion with;
    fused_frame frame;
    launch_shape shape;
};

namespace detail {

/// Whether runs of `elements` reach all that a slot of these heads begins with. Two runs make a slot.
inline bool takes_runs(std::int64_t head_dim, std::int64_t rotary_offset, std::int64_t pairs, std::int64_t elements) {
    return pairs % elements == 0 && rotary_offset % elements == 0 && (head_dim - 2 * pairs) % (2 * elements) == 0;
}

inline bool takes_runs(const cache_tensor& cache, std::int64_t elements) {
    const std::int64_t bytes = std::min<std::int64_t>(elements * size_of(cache.type), 16);
    const auto whole = [&](std::int64_t extent, std::int64_t stride) {
        return extent <= 1 || stride * size_of(cache.type) % bytes == 0;
    };
    return !cache.exists() || (reinterpret_cast<std::uintptr_t>(cache.data) % static_cast<std::uintptr_t>(bytes) == 0 &&
                               whole(cache.pages, cache.stride_page) && whole(cache.page_size, cache.stride_token) &&
                               whole(cache.heads, cache.stride_head));
}

inline bool takes_runs(const head_norm& norm, std::int64_t elements) {
    const std::size_t bytes = std::min<std::size_t>(static_cast<std::size_t>(elements) * size_of(norm.type), 16);
    return reinterpret_cast<std::uintptr_t>(norm.weight) % bytes == 0;
}

/// Whether 16 bytes at once reach everything.
inline bool takes_widest(const fused_plan& made) {
    const ropewalk::rotate_params& work = made.work;
    const std::int64_t elements = 16 / static_cast<std::int64_t>(size_of(work.any().type));
    for (const tensor* t : {&work.q_in, &work.q_out, &work.k_in, &work.k_out, &made.v, &made.v_out})
        if (!takes_access(*t, 16)) return false;
    return takes_runs(work.any().head_dim, work.rotary_offset, work.pairs, elements) &&
           (!made.v.exists() || takes_runs(made.v.head_dim, 0, 0, elements)) &&
           takes_runs(made.with.cache.k, elements) && takes_runs(made.with.cache.v, elements) &&
           takes_runs(made.with.q_norm, elements) && takes_runs(made.with.k_norm, elements);
}

inline cache_sink sink_of(const cache_tensor& cache) {
    return {cache.data,
            cache.type,
            cache.stride_page,
            cache.stride_token,
            cache.stride_head,
            cache.scale,
            1 / cache.scale,
            cache.scales,
            cache.scale_stride_page,
            cache.scale_stride_token,
            cache.scale_stride_head};
}

inline norm_source source_of(const head_norm& norm, std::int64_t head_dim) {
    return {norm.weight, norm.type, static_cast<float>(norm.epsilon), norm.one_plus ? 1.0F : 0.0F,
            1 / static_cast<float>(head_dim)};
}

/// The slots of the heads of one side, of V elements twice.
inline void set_slots(fused_side& side, std::int64_t head_dim, std::int64_t rotary_offset, std::int64_t pairs,
                      std::int64_t v) {
    side.head_dim = head_dim, side.rotary_offset = rotary_offset, side.pairs = pairs;
    side.turning = static_cast<std::int32_t>(pairs / v);
    side.slots = side.turning + static_cast<std::int32_t>(divide_up(divide_up(head_dim - 2 * pairs, 2), v));
}

/// The pairs for which the kernel of a call has room: those of half its widest head.
inline int capacity_of(const fused_plan& made) {
    const bool plain = !made.work.has_magnitude || made.shape.bytes < 16;
    const std::int64_t widest = std::max(made.work.any().head_dim, made.v.exists() ? made.v.head_dim : 0);
    return plain && widest <= 2 * few_pairs ? few_pairs : most_pairs;
}

/// Lanes of a head: enough for the side with the most slots, and a power of two where they put something together.
inline std::int32_t lanes_of(const fused_frame& frame, int spots) {
    std::int64_t lanes = 1;
    for (const fused_side& side : frame.side) lanes = std::max(lanes, divide_up(side.slots, spots));
    if (!frame.sums && !frame.measures) return static_cast<std::int32_t>(lanes);
    std::int32_t power = 1;
    while (power < lanes) power *= 2;
    return power;
}

/// Fills in what becomes of the heads, in accesses of `bytes`.
inline void set_sides(fused_plan& made, std::int64_t most) {
    const ropewalk::rotate_params& work = made.work;
    const fusion& with = made.with;
    fused_frame& frame = made.frame;
    const std::int64_t v = made.shape.bytes / static_cast<std::int64_t>(size_of(work.any().type));
    const tensor* const in[] = {&work.q_in, &work.k_in, &made.v};
    const tensor* const out[] = {&work.q_out, &work.k_out, &made.v_out};
    for (int i = 0; i < 3; ++i) {
        if (!in[i]->exists() || in[i]->elements() == 0) continue;
        static_cast<heads_source&>(frame.side[i]) = side_of(*in[i], *out[i], most);
        const bool turns = i < 2;
        set_slots(frame.side[i], in[i]->head_dim, turns ? work.rotary_offset : 0, turns ? work.pairs : 0, v);
    }
    frame.side[0].norm = source_of(with.q_norm, work.any().head_dim);
    frame.side[1].norm = source_of(with.k_norm, work.any().head_dim);
    frame.side[1].sink = sink_of(with.cache.k);
    frame.side[2].sink = sink_of(with.cache.v);
    frame.sums = with.q_norm.weight != nullptr || with.k_norm.weight != nullptr;
    frame.measures = (with.cache.k.exists() && with.cache.k.type == cache_type::i8) ||
                     (with.cache.v.exists() && with.cache.v.type == cache_type::i8);
}

inline void choose_fused_launch(fused_plan& made, const device_shape& device) {
    const ropewalk::rotate_params& work = made.work;
    fused_frame& frame = made.frame;
    const auto size = static_cast<int>(size_of(work.any().type));
    made.shape.bytes = takes_widest(made) ? 16 : size;
    const int v = made.shape.bytes / size, capacity = capacity_of(made), rows = heads_at_once(v, capacity);
    check_width(work.any().head_dim, v), check_width(made.v.exists() ? made.v.head_dim : 0, v);
    frame.source = source_of(work);
    frame.places = slots_of(made.with, work);
    frame.tokens = work.tokens();
    set_sides(made, 1);
    frame.lanes = lanes_of(frame, slots_a_lane(v, capacity));
    const std::int64_t positions = work.batch() * work.tokens();
    const std::int64_t kv_heads = frame.side[1].heads + frame.side[2].heads;
    set_sides(made, heads_a_thread(positions * frame.lanes, frame.side[0].heads, kv_heads, device));
    for (int i = 0; i < 3; ++i) {
        frame.first_group[i] = frame.groups;
        frame.groups += groups_of(frame.side[i]);
        frame.steps = std::max(frame.steps, static_cast<std::int32_t>(divide_up(frame.side[i].heads_a_thread, rows)));
    }
    frame.items = positions * frame.groups;
    frame.threads = divide_up(frame.items * frame.lanes, warp_lanes) * warp_lanes;
    made.shape = shape_of_launch(frame.threads, made.shape.bytes, device);
}

}  // namespace detail

/// Calls f(std::type_identity<Rates>, std::integral_constant<int, bytes>) with what chooses the kernel of a plan.
/// Three kernels serve all calls of a type and a layout: the widest accesses for heads up to 256 wide, the same for
/// xPos and wider heads, and single elements.
template <Element T, class F>
void with_fused_kernel(const fused_plan& made, const F& f) {
    constexpr int one = static_cast<int>(sizeof(T));
    if (made.shape.bytes < 16) {
        f(std::type_identity<full_rates<few_pairs>>{}, std::integral_constant<int, one>{});
    } else if (detail::capacity_of(made) == few_pairs) {
        f(std::type_identity<plain_rates<few_pairs>>{}, std::integral_constant<int, 16>{});
    } else {
        f(std::type_identity<full_rates<most_pairs>>{}, std::integral_constant<int, 16>{});
    }
}

/// Checks a fused call and plans its launch. In place where input and output agree; keys and values that go to a cache
/// need no output.
template <class T>
fused_plan make_fused_plan(layout_kind layout, const qkv<const T>& in, const qkv<T>& out, const fusion& with,
                           const Encoding& encoding, const positions& where, const options& chosen,
                           const device_shape& device = {}) {
    RW_EXPECTS(chosen.direction == direction::forward, "fused calls support only direction::forward; use rotate()");
    const tensor& k_out = out.k.exists() ? static_cast<const tensor&>(out.k) : in.k;
    detail::check_sides(in, out, with);
    fused_plan made;
    made.with = with, made.v = in.v, made.v_out = out.v;
    ropewalk::rotate_params& work = made.work;
    work = detail::make_device_params({.layout = layout,
                                       .q_in = in.q,
                                       .k_in = in.k,
                                       .q_out = out.q,
                                       .k_out = k_out,
                                       .target = &encoding,
                                       .target_positions = where,
                                       .table = chosen.table});
    detail::check_values(made.v, made.v_out, work, in.k.exists());
    detail::check_fusion(with, work, made.v, made.v_out);
    if (!out.k.exists()) work.k_out = tensor{};
    detail::choose_fused_launch(made, device);
    return made;
}

/// The kernel's parameter.
template <class Rates>
fused_job<Rates> job_of(const fused_plan& prepared) {
    return {prepared.frame, rates_of<Rates>(prepared.work)};
}

}  // namespace ropewalk::gpu
