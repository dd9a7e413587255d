// Rotation of queries and keys on the CPU, for whoever includes the headers.
#pragma once

#include "ropewalk/cpu/execute.hpp"
#include "ropewalk/cpu/kernel.hpp"

namespace ropewalk::cpu {

/// Encodes queries q and keys k [batch, tokens, heads, head_dim] in place: pair j of the token at position p turns by
/// p · θ'_j. k may have fewer heads, and either may be absent (view<T>{}). f32 results lie within 3e-7 of the vector's
/// norm of exact arithmetic for |p| < 2^31; f16 and bf16 within one rounding.
///
/// Throws ropewalk::error, with nothing written, when shapes, strides, positions or the layout do not fit.
///
/// A is the instruction set of the file, in the name so that files compiled for different ones each call their own.
template <Layout L, class T, class A = native_arch>
void rotate(const view<T>& q, const view<T>& k, const Encoding& encoding, const positions& where,
            const options& chosen = {}) {
    static_assert(!std::is_const_v<T>, "rotating in place writes: const elements need an output of their own");
    const plan prepared = make_plan(kind_of<L>, q, k, q, k, encoding, where, chosen);
    execute(prepared, detail::kernel_for<T, L, A>(prepared.work.pairs), chosen.threads);
}

/// The same for queries alone.
template <Layout L, class T, class A = native_arch>
void rotate(const view<T>& q, const Encoding& encoding, const positions& where, const options& chosen = {}) {
    rotate<L, T, A>(q, view<T>{}, encoding, where, chosen);
}

/// The same into other buffers, which must not overlap the inputs. Elements that do not turn are copied.
template <Layout L, class In, class T, class A = native_arch>
    requires std::same_as<std::remove_const_t<In>, T>
void rotate(const view<In>& q, const view<In>& k, const view<T>& q_out, const view<T>& k_out, const Encoding& encoding,
            const positions& where, const options& chosen = {}) {
    const plan prepared = make_plan(kind_of<L>, q, k, q_out, k_out, encoding, where, chosen);
    execute(prepared, detail::kernel_for<T, L, A>(prepared.work.pairs), chosen.threads);
}

/// Turns keys that `from` encoded at `from_where`, in place, into what `to` makes of them at `to_where`: one pass over
/// a cache whose encoding or positions have changed.
template <Layout L, class T, class A = native_arch>
void rerotate(const view<T>& k, const Encoding& from, const positions& from_where, const Encoding& to,
              const positions& to_where, int threads = 0) {
    static_assert(!std::is_const_v<T>, "rotating in place writes: const elements need an output of their own");
    const plan prepared = make_rerotation_plan(kind_of<L>, k, k, from, from_where, to, to_where);
    execute(prepared, detail::kernel_for<T, L, A>(prepared.work.pairs), threads);
}

}  // namespace ropewalk::cpu
