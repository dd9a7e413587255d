// Rotation of queries and keys on a GPU.
#pragma once

#include "ropewalk/core/compiler.hpp"
#include "ropewalk/gpu/launch.cuh"
#include "ropewalk/gpu/mistakes.hpp"
#include "ropewalk/gpu/rotate_body.hpp"

namespace ropewalk::gpu {

namespace detail {

/// Resident blocks per multiprocessor that limit the registers of a kernel: half of the threads of a multiprocessor, or
/// three eighths for full_rates (magnitudes, re-rotation, many pairs).
template <class Rates>
inline constexpr int blocks_resident = Rates::full ? 6 : 8;

template <Element T, Layout L, int Bytes, class Rates>
RW_HIDDEN __global__ void __launch_bounds__(max_threads, blocks_resident<Rates>)
    rotate_kernel(const __grid_constant__ rotate_kernel_params<Rates> params) {
    start_next();
    const std::int64_t index = launch_index();
    if (index < params.threads) rotate_body<T, L, Bytes>(params, index);
}

/// Launches a plan; does nothing where it has no threads. Hidden like the kernel, and so are all functions that inline
/// it: otherwise the functions of one module could launch the kernels of another.
template <class T, Layout L>
RW_HIDDEN void run(const launch_plan& plan, int device, const options& options) {
    static_assert(Element<T>, "double rotates on the CPU only: elements on a GPU are float, rw::f16 or rw::bf16");
    if (plan.shape.threads == 0) return;
    if (options.check_pointers) check_pointers(plan.kernel.rotation, device);
    if constexpr (Element<T>) {
        with_rates(plan.kernel.rotation, [&]<class Rates>(std::type_identity<Rates>) {
            with_access<T, Rates>(plan.shape.bytes, [&](auto bytes) {
                launch(&rotate_kernel<T, L, bytes(), Rates>, kernel_params<Rates>(plan), plan.shape, options,
                       plan.kernel.rotation.any());
            });
        });
    }
}

}  // namespace detail

/// Encodes queries q and keys k [batch, tokens, heads, head_dim] in place, in one launch on the current device: pair j
/// of the token at position p is rotated by the angle p · θ'_j. k may have fewer heads, and either may be absent
/// (view<T>{}). Views, positions and tables are in device memory and must live until the launch has run. f32 results
/// are within 3e-7 of the norm of the vector for |p| < 2^31; f16 and bf16 results are within one rounding.
///
/// Throws ropewalk::error, with nothing launched, where shapes, strides, pointers or layout do not fit, or where the
/// launch fails. Values in device memory are not validated. Without a table, every index is valid. Entries of
/// cu_seqlens that do not ascend from 0 to the number of tokens give meaningless positions, but no access outside the
/// arguments.
template <Layout L, class T>
RW_HIDDEN void rotate(const view<T>& q, const view<T>& k, const Encoding& encoding, const positions& positions,
                      const options& options = {}) {
    static_assert(!std::is_const_v<T>, "rotating in place writes: const elements need an output of their own");
    const int device = detail::current_device();
    detail::run<T, L>(make_plan(kind_of<L>, q, k, q, k, encoding, positions, options, detail::shape_of_device(device)),
                      device, options);
}

/// Encodes queries alone, in place.
template <Layout L, class T>
RW_HIDDEN void rotate(const view<T>& q, const Encoding& encoding, const positions& positions,
                      const options& options = {}) {
    rotate<L>(q, view<T>{}, encoding, positions, options);
}

/// Encodes into other buffers, which must not overlap the inputs. Elements outside the rotary part are copied.
template <Layout L, class In, class T>
    requires std::same_as<std::remove_const_t<In>, T>
RW_HIDDEN void rotate(const view<In>& q, const view<In>& k, const view<T>& q_out, const view<T>& k_out,
                      const Encoding& encoding, const positions& positions, const options& options = {}) {
    const int device = detail::current_device();
    detail::run<T, L>(
        make_plan(kind_of<L>, q, k, q_out, k_out, encoding, positions, options, detail::shape_of_device(device)),
        device, options);
}

/// Re-encodes cached keys in place, from `source` at `source_positions` to `target` at `target_positions`: one pass
/// over a cache whose encoding or positions have changed. Magnitudes (xPos) must not change by more than 2^126, which
/// is checked where both positions are offsets.
template <Layout L, class T>
RW_HIDDEN void rerotate(const view<T>& k, const Encoding& source, const positions& source_positions,
                        const Encoding& target, const positions& target_positions, const options& options = {}) {
    static_assert(!std::is_const_v<T>, "rotating in place writes: const elements need an output of their own");
    const int device = detail::current_device();
    detail::run<T, L>(make_rerotation_plan(kind_of<L>, k, k, source, source_positions, target, target_positions,
                                           options, detail::shape_of_device(device)),
                      device, options);
}

}  // namespace ropewalk::gpu
