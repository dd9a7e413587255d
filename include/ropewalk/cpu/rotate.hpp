// Rotation of queries and keys on the CPU, for programs that include the headers.
#pragma once

#include "ropewalk/core/compiler.hpp"
#include "ropewalk/cpu/execute.hpp"
#include "ropewalk/cpu/kernel.hpp"
#include "ropewalk/cpu/mistakes.hpp"
#include "ropewalk/cpu/plan.hpp"

namespace ropewalk::cpu {

namespace detail {

template <class T, Layout L, class A>
void run(const rotate_plan& plan, const threads& threads) {
    execute(plan.params, kernel_of<T, L, A>.run, threads);
}

}  // namespace detail

/// Encodes queries q and keys k [batch, tokens, heads, head_dim] in place: pair j of the token at position p is rotated
/// by the angle p · θ'_j. k may have fewer heads, and either may be absent (view<T>{}). f32 results are within 3e-7 of
/// the norm of the pair for |p| < 2^31; f16 and bf16 results are within one rounding. double results are within 4e-16
/// of the norm, plus 1.4e-18 |p| for the rounding of the steps; attention factors and magnitudes add one rounding each.
///
/// Throws ropewalk::error, with nothing written, where shapes, strides, positions or layout do not fit.
///
/// A is the instruction set of the file. It is part of the name, so that files compiled for different instruction sets
/// each call their own kernels.
template <Layout L, class T, class A = native_arch>
void rotate(const view<T>& q, const view<T>& k, const Encoding& encoding, const positions& positions,
            const options& options = {}) {
    static_assert(!std::is_const_v<T>, "rotating in place writes: const elements need an output of their own");
    detail::run<T, L, A>(make_plan(kind_of<L>, q, k, q, k, encoding, positions, options), options.threads);
}

/// Encodes queries alone, in place.
template <Layout L, class T, class A = native_arch>
void rotate(const view<T>& q, const Encoding& encoding, const positions& positions, const options& options = {}) {
    rotate<L, T, A>(q, view<T>{}, encoding, positions, options);
}

/// Encodes into other buffers, which must not overlap the inputs. Elements outside the rotary part are copied.
template <Layout L, class In, class T, class A = native_arch>
    requires std::same_as<std::remove_const_t<In>, T>
void rotate(const view<In>& q, const view<In>& k, const view<T>& q_out, const view<T>& k_out, const Encoding& encoding,
            const positions& positions, const options& options = {}) {
    detail::run<T, L, A>(make_plan(kind_of<L>, q, k, q_out, k_out, encoding, positions, options), options.threads);
}

/// Re-encodes cached keys in place, from `source` at `source_positions` to `target` at `target_positions`: one pass
/// over a cache whose encoding or positions have changed.
template <Layout L, class T, class A = native_arch>
void rerotate(const view<T>& k, const Encoding& source, const positions& source_positions, const Encoding& target,
              const positions& target_positions, const threads& threads = {}) {
    static_assert(!std::is_const_v<T>, "rotating in place writes: const elements need an output of their own");
    detail::run<T, L, A>(make_rerotation_plan(kind_of<L>, k, k, source, source_positions, target, target_positions),
                         threads);
}

}  // namespace ropewalk::cpu
