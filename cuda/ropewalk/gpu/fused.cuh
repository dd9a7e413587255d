// Rotation with what surrounds it in attention: norms before, caches behind, all in one pass over the memory.
#pragma once

#include "ropewalk/gpu/fused_body.hpp"
#include "ropewalk/gpu/fused_plan.hpp"
#include "ropewalk/gpu/launch.cuh"

namespace ropewalk::gpu {

namespace detail {

/// Whole warps, all lanes of which run to the end: threads are a multiple of them, and so are those of a block.
template <Element T, Layout L, int Bytes, class Rates>
RW_HIDDEN __global__ void __launch_bounds__(most_threads) fused_kernel(const __grid_constant__ fused_job<Rates> job) {
    wait_for_previous();
    const std::int64_t index = launch_index();
    if (index < job.threads) run_lanes<device_lane>(fused_body<T, L, Bytes, Rates>{job}, index);
}

inline void check_pointers(const fused_plan& prepared, int device) {
    check_pointers(prepared.work, device);
    const fusion& with = prepared.with;
    check_pointer("v", prepared.v.data, device);
    if (prepared.v_out.data != prepared.v.data) check_pointer("v's output", prepared.v_out.data, device);
    check_pointer("the norm's weights of q", with.q_norm.weight, device);
    check_pointer("the norm's weights of k", with.k_norm.weight, device);
    check_pointer("the cache of k", with.cache.k.data, device);
    check_pointer("the cache of v", with.cache.v.data, device);
    check_pointer("the scales of k", with.cache.k.scales, device);
    check_pointer("the scales of v", with.cache.v.scales, device);
    check_pointer("the entries of the cache", with.slots.entries.data, device);
    check_pointer("the page table", with.slots.table, device);
    check_pointer("the slot mapping", with.slots.mapping, device);
}

/// Launches a plan, or does nothing where there is nothing to do.
template <Element T, Layout L>
RW_HIDDEN void run(const fused_plan& prepared, int device, const options& chosen) {
    if (prepared.shape.threads == 0) return;
    if (chosen.check_pointers) check_pointers(prepared, device);
    with_fused_kernel<T>(prepared, [&]<class Rates>(std::type_identity<Rates>, auto bytes) {
        launch(&fused_kernel<T, L, bytes(), Rates>, job_of<Rates>(prepared), prepared.shape, chosen);
    });
}

}  // namespace detail

/// Norms, rotates and stores the heads of one attention layer in one launch on the current device: q and k are normed
/// over head_dim and turned as rotate() turns them, and written to their outputs; k and v also go to the slots of a
/// cache, in its element type. Each part happens where it is given: an input may be absent (view<T>{}), keys and values
/// with a cache need no output, and an output may be its input (in place). Slices of a packed projection are inputs
/// like others: see split_qkv().
///
/// A result has the bits of the parts one after the other in float32: elements widened to float, normed (each number
/// rounded to float), rotated (likewise), and rounded once to the type of the output or of the cache. With f16 and bf16
/// that saves the rounding to T between the parts. Bits depend neither on T's alignment nor on the launch.
///
/// Everything is device memory, and lives until the stream has passed the launch. Throws ropewalk::error, with nothing
/// launched, when shapes, strides, pointers, slots or the layout do not fit, as far as the host can tell, or where the
/// launch fails. Tokens whose slot lies outside the cache are not written to it: see cache_slots. Heads may be 1024
/// wide, from 257 on only where 16-byte accesses reach all of them.
template <Layout L, class T>
RW_HIDDEN void fused(const std::type_identity_t<qkv<const T>>& in, const qkv<T>& out, const fusion& with,
                     const Encoding& encoding, const positions& where, const options& chosen = {}) {
    static_assert(!std::is_const_v<T>, "outputs are written: their elements cannot be const");
    const int device = detail::current_device();
    detail::run<T, L>(
        make_fused_plan<T>(kind_of<L>, in, out, with, encoding, where, chosen, detail::shape_of_device(device)), device,
        chosen);
}

/// Rotates queries in place, and writes rotated keys and unchanged values to the slots of a cache. k itself stays.
template <Layout L, class T>
RW_HIDDEN void append(const view<T>& q, const std::type_identity_t<view<const T>>& k,
                      const std::type_identity_t<view<const T>>& v, const kv_cache& cache, const cache_slots& slots,
                      const Encoding& encoding, const positions& where, const options& chosen = {}) {
    static_assert(!std::is_const_v<T>, "rotating in place writes: const elements need an output of their own");
    fused<L, T>({q, k, v}, {q, {}, {}}, {.cache = cache, .slots = slots}, encoding, where, chosen);
}

/// Norms and rotates queries and keys in place.
template <Layout L, class T>
RW_HIDDEN void norm_rotate(const view<T>& q, const view<T>& k, const head_norm& q_norm, const head_norm& k_norm,
                           const Encoding& encoding, const positions& where, const options& chosen = {}) {
    static_assert(!std::is_const_v<T>, "rotating in place writes: const elements need an output of their own");
    fused<L, T>({q, k, {}}, {q, k, {}}, {.q_norm = q_norm, .k_norm = k_norm}, encoding, where, chosen);
}

}  // namespace ropewalk::gpu
