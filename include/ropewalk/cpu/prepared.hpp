// Preparation of rotations, for programs that include the headers.
#pragma once

#include "ropewalk/cpu/kernel.hpp"
#include "ropewalk/cpu/prepared_rotation.hpp"

namespace ropewalk::cpu {

/// Prepares the rotation of tensors with the shapes and strides of q and k, [batch, tokens, heads, head_dim], at any
/// address: `prepare<half_split>(q, k, encoding)` once, then `run(q, k, position)` per layer and token. Validates like
/// cpu::rotate(), here and not in run().
template <Layout L, class T, class A = native_arch>
prepared<T> prepare(const view<T>& q, const view<T>& k, const Encoding& encoding, const options& options = {}) {
    return prepared<T>(prepared_rotation(kernel_of<T, L, A>, kind_of<L>, q, k, q, k, encoding, options));
}

/// Prepares the rotation of queries alone.
template <Layout L, class T, class A = native_arch>
prepared<T> prepare(const view<T>& q, const Encoding& encoding, const options& options = {}) {
    return prepare<L, T, A>(q, view<T>{}, encoding, options);
}

/// Prepares a rotation whose outputs have other strides than its inputs.
template <Layout L, class In, class T, class A = native_arch>
    requires std::same_as<std::remove_const_t<In>, T>
prepared<T> prepare(const view<In>& q, const view<In>& k, const view<T>& q_out, const view<T>& k_out,
                    const Encoding& encoding, const options& options = {}) {
    return prepared<T>(prepared_rotation(kernel_of<T, L, A>, kind_of<L>, q, k, q_out, k_out, encoding, options));
}

}  // namespace ropewalk::cpu
