// Rotation fused with its neighbours in attention: norms before, caches after, in one pass over memory.
#pragma once

#include "ropewalk/core/compiler.hpp"
#include "ropewalk/gpu/fused_body.hpp"
#include "ropewalk/gpu/fused_plan.hpp"
#include "ropewalk/gpu/launch.cuh"

namespace ropewalk::gpu {

namespace detail {

/// Resident blocks per multiprocessor that limit the registers of a kernel without norms and conversions, for ordinary
/// heads. The other kernels spill under such a limit.
template <class Rates, bool Norms, bool Converts>
inline constexpr int fused_blocks_resident = Rates::full || Norms || Converts ? 1 : 6;

/// Runs whole warps to the end: threads and blocks are multiples of a warp.
template <Element T, Layout L, int Bytes, class Rates, bool Norms, bool Converts>
RW_HIDDEN __global__ void __launch_bounds__(max_threads, fused_blocks_resident<Rates, Norms, Converts>)
    fused_kernel(const __grid_constant__ fused_kernel_params<Rates> params) {
    start_next();
    const std::int64_t index = launch_index();
    constexpr fused_parts parts{.norms = Norms, .converts = Converts};
    if (index < params.threads) run_lanes<device_lane>(fused_body<T, L, Bytes, Rates, parts>{params}, index);
}

inline void check_pointers(const fused_plan& plan, int device) {
    check_pointers(plan.kernel.rotation, device);
    const fusion& with = plan.with;
    check_pointer("v", plan.v.data, device);
    if (plan.v_out.data != plan.v.data) check_pointer("v's output", plan.v_out.data, device);
    check_pointer("the norm's weights of q", with.q_norm.weight, device);
    check_pointer("the norm's weights of k", with.k_norm.weight, device);
    const auto check_sink = [&](std::string_view name, const cache_tensor& sink) {
        check_pointer(name, sink.data, device);
        check_pointer(ropewalk::detail::format("the scales of {}", name), sink.scales, device);
        check_pointer(ropewalk::detail::format("the scale of {}", name), sink.scale_at, device);
    };
    check_sink("the cache of k", with.cache.k);
    check_sink("the cache of v", with.cache.v);
    check_sink("the quantised output of q", with.quantised.q);
    check_sink("the quantised output of k", with.quantised.k);
    check_sink("the quantised output of v", with.quantised.v);
    check_pointer("the entries of the cache", with.slots.entries.data, device);
    check_pointer("the page table", with.slots.table, device);
    check_pointer("the starts of the page lists", with.slots.starts, device);
    check_pointer("the lengths of the last pages", with.slots.last_page_len, device);
    check_pointer("the slot mapping", with.slots.mapping, device);
}

/// Launches a plan; does nothing where it has no threads. `Used` are the parts that the plan may have.
template <Element T, Layout L, fused_parts Used = fused_parts{}>
RW_HIDDEN void run(const fused_plan& plan, int device, const options& options) {
    if (plan.shape.threads == 0) return;
    if (options.check_pointers) check_pointers(plan, device);
    with_fused_kernel<T, Used>(plan, [&]<class Kind>(Kind) {
        using Rates = typename Kind::Rates;
        launch(&fused_kernel<T, L, Kind::bytes, Rates, Kind::norms, Kind::converts>, kernel_params<Rates>(plan),
               plan.shape, options);
    });
}

/// Plans a call on the current device and launches it. `Used` are the parts that the call may have, so that a program
/// contains no other kernels.
template <Layout L, class T, fused_parts Used = fused_parts{}>
RW_HIDDEN void plan_and_run(const qkv<const T>& in, const qkv<T>& out, const fusion& with, const Encoding& encoding,
                            const positions& positions, const options& options) {
    const int device = current_device();
    run<T, L, Used>(
        make_fused_plan<T>(kind_of<L>, in, out, with, encoding, positions, options, shape_of_device(device)), device,
        options);
}

}  // namespace detail

/// Norms, rotates and stores the heads of one attention layer in one launch on the current device. q and k are normed
/// over head_dim, rotated as by rotate(), and written to their outputs. k and v are also written to the slots of a
/// cache, in its element type. Every part is optional: an input may be absent (view<T>{}), keys and values with a cache
/// need no output, and an output may be its input (in place). For slices of a packed projection see split_qkv().
///
/// A result has the bits of the separate parts in float32: elements widened to float, normed (each number rounded to
/// float), rotated (likewise), and rounded once to the type of the output or of the cache. For f16 and bf16, this saves
/// the rounding to T between the parts. Bits depend neither on the alignment of the arguments nor on the launch.
///
/// All arguments are in device memory and must live until the launch has run. Throws ropewalk::error, with nothing
/// launched, where shapes, strides, pointers, slots or layout do not fit, as far as the host knows, or where the launch
/// fails. Tokens whose slot lies outside the cache are not written to it: see cache_slots. Heads have at most 1024
/// elements; heads wider than 256 need 16-byte accesses.
template <Layout L, class T>
RW_HIDDEN void fused(const std::type_identity_t<qkv<const T>>& in, const qkv<T>& out, const fusion& with,
                     const Encoding& encoding, const positions& positions, const options& options = {}) {
    static_assert(!std::is_const_v<T>, "outputs are written: their elements cannot be const");
    detail::plan_and_run<L, T>(in, out, with, encoding, positions, options);
}

/// Rotates queries in place, and writes rotated keys and unchanged values to the slots of a cache. k is not changed.
template <Layout L, class T>
RW_HIDDEN void append(const view<T>& q, const std::type_identity_t<view<const T>>& k,
                      const std::type_identity_t<view<const T>>& v, const kv_cache& cache, const cache_slots& slots,
                      const Encoding& encoding, const positions& positions, const options& options = {}) {
    static_assert(!std::is_const_v<T>, "rotating in place writes: const elements need an output of their own");
    detail::plan_and_run<L, T, fused_parts{.norms = false}>({q, k, v}, {q, {}, {}}, {.cache = cache, .slots = slots},
                                                            encoding, positions, options);
}

/// Rotates the rotary parts of queries in place, and writes one row per token to a cache of multi-head latent
/// attention: latent [batch, tokens, 1, latent_dim], then rotated k_rope [batch, tokens, 1, rope_dim]. See mla_cache().
template <Layout L, class T>
RW_HIDDEN void append_mla(const view<T>& q_rope, const std::type_identity_t<view<const T>>& k_rope,
                          const std::type_identity_t<view<const T>>& latent, const cache_tensor& cache,
                          const cache_slots& slots, const Encoding& encoding, const positions& positions,
                          const options& options = {}) {
    append<L, T>(q_rope, k_rope, latent, mla_cache(cache, latent.head_dim), slots, encoding, positions, options);
}

/// Norms and rotates queries and keys in place.
template <Layout L, class T>
RW_HIDDEN void norm_rotate(const view<T>& q, const view<T>& k, const head_norm& q_norm, const head_norm& k_norm,
                           const Encoding& encoding, const positions& positions, const options& options = {}) {
    static_assert(!std::is_const_v<T>, "rotating in place writes: const elements need an output of their own");
    detail::plan_and_run<L, T, fused_parts{.converts = false}>(
        {q, k, {}}, {q, k, {}}, {.q_norm = q_norm, .k_norm = k_norm}, encoding, positions, options);
}

}  // namespace ropewalk::gpu
