// Rotation of queries and keys on a GPU.
#pragma once

#include "ropewalk/gpu/launch.cuh"
#include "ropewalk/gpu/rotate_body.hpp"

namespace ropewalk::gpu {

namespace detail {

/// Blocks that a multiprocessor's registers shall hold: half of its threads, or three eighths where there are
/// magnitudes to make.
template <class Rates>
inline constexpr int blocks_resident = Rates::full ? 6 : 8;

template <Element T, Layout L, int Bytes, class Rates>
RW_HIDDEN __global__ void __launch_bounds__(most_threads, blocks_resident<Rates>)
    rotate_kernel(const __grid_constant__ rotate_job<Rates> job) {
    wait_for_previous();
    const std::int64_t index = launch_index();
    if (index < job.threads) rotate_body<T, L, Bytes>(job, index);
}

/// Launches a plan, or does nothing where there is nothing to do. Hidden like the kernel and whatever is inlined into a
/// user's code with it: else the functions of one module might launch the kernels of another.
template <Element T, Layout L>
RW_HIDDEN void run(const rotate_plan& prepared, int device, const options& chosen) {
    if (prepared.shape.threads == 0) return;
    if (chosen.check_pointers) check_pointers(prepared.work, device);
    with_rates(prepared.work, [&]<class Rates>(std::type_identity<Rates>) {
        const rotate_job<Rates> job = job_of<Rates>(prepared);
        with_access<T, Rates>(prepared.shape.bytes, [&](auto bytes) {
            launch(&rotate_kernel<T, L, bytes(), Rates>, job, prepared.shape, chosen, prepared.work.any());
        });
    });
}

}  // namespace detail

/// Encodes queries q and keys k [batch, tokens, heads, head_dim] in place, in one launch on the current device: pair j
/// of the token at position p turns by p · θ'_j. k may have fewer heads, and either may be absent (view<T>{}). Views,
/// positions and tables are device memory, and live until the stream has passed the launch. f32 results lie within 3e-7
/// of the vector's norm of exact arithmetic for |p| < 2^31; f16 and bf16 within one rounding.
///
/// Throws ropewalk::error, with nothing launched, when shapes, strides, pointers or the layout do not fit, or where the
/// launch fails. What device memory holds is not known here: any index is right without a table, and cu_seqlens which
/// do not ascend from 0 to the number of tokens give positions which make no sense, but nothing beside it is read.
template <Layout L, class T>
RW_HIDDEN void rotate(const view<T>& q, const view<T>& k, const Encoding& encoding, const positions& where,
                      const options& chosen = {}) {
    static_assert(!std::is_const_v<T>, "rotating in place writes: const elements need an output of their own");
    const int device = detail::current_device();
    detail::run<T, L>(make_plan(kind_of<L>, q, k, q, k, encoding, where, chosen, detail::shape_of_device(device)),
                      device, chosen);
}

/// The same for queries alone.
template <Layout L, class T>
RW_HIDDEN void rotate(const view<T>& q, const Encoding& encoding, const positions& where, const options& chosen = {}) {
    rotate<L>(q, view<T>{}, encoding, where, chosen);
}

/// The same into other buffers, which must not overlap the inputs. Elements that do not turn are copied.
template <Layout L, class In, class T>
    requires std::same_as<std::remove_const_t<In>, T>
RW_HIDDEN void rotate(const view<In>& q, const view<In>& k, const view<T>& q_out, const view<T>& k_out,
                      const Encoding& encoding, const positions& where, const options& chosen = {}) {
    const int device = detail::current_device();
    detail::run<T, L>(
        make_plan(kind_of<L>, q, k, q_out, k_out, encoding, where, chosen, detail::shape_of_device(device)), device,
        chosen);
}

/// Turns keys that `from` encoded at `from_where`, in place, into what `to` makes of them at `to_where`: one pass over
/// a cache whose encoding or positions have changed. Magnitudes (xPos) must not change by more than 2^126, which is
/// checked where both positions are offsets.
template <Layout L, class T>
RW_HIDDEN void rerotate(const view<T>& k, const Encoding& from, const positions& from_where, const Encoding& to,
                        const positions& to_where, const options& chosen = {}) {
    static_assert(!std::is_const_v<T>, "rotating in place writes: const elements need an output of their own");
    const int device = detail::current_device();
    detail::run<T, L>(
        make_rerotation_plan(kind_of<L>, k, k, from, from_where, to, to_where, chosen, detail::shape_of_device(device)),
        device, chosen);
}

}  // namespace ropewalk::gpu
