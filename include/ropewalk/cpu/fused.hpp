// Rotation fused with its neighbours in attention: norms before, caches after, in one pass over memory.
#pragma once

#include "ropewalk/cpu/fused_kernel.hpp"
#include "ropewalk/cpu/fused_plan.hpp"
#include "ropewalk/cpu/kernel.hpp"
#include "ropewalk/cpu/prepared_fused.hpp"

namespace ropewalk::cpu {

/// Norms, rotates and stores the heads of one attention layer. q and k are normed over head_dim, rotated as by
/// rotate(), and written to their outputs. k and v are also written to the slots of a cache, in its element type. Every
/// part is optional: an input may be absent (view<T>{}), keys and values with a cache need no output, and an output may
/// be its input (in place). For slices of a packed projection see split_qkv().
///
/// A result has the bits of the separate parts in float32: elements widened to float, normed (each number rounded to
/// float), rotated (likewise), and rounded once to the type of the output or of the cache. Bits do not depend on the
/// number of threads.
///
/// Throws ropewalk::error, with nothing written, where shapes, strides, pointers, slots or layout do not fit. A
/// negative slot skips its token; any other slot outside the cache is an error. Two tokens of one call must not have
/// the same slot, which is not checked.
template <Layout L, class T, class A = native_arch>
void fused(const std::type_identity_t<qkv<const T>>& in, const qkv<T>& out, const fusion& with,
           const Encoding& encoding, const positions& positions, const options& options = {}) {
    static_assert(!std::is_const_v<T>, "outputs are written: their elements cannot be const");
    static_assert(Element<T>, "fused calls take float, f16 and bf16");
    fused_args args = make_fused_args<T>(kind_of<L>, in, out, with, encoding, positions, options.table);
    args.rotation.direction = options.direction;
    fused_plan plan = make_fused_plan(args, tuning_of(options));
    execute(plan.params, kernel_of<T, L, A>, kernel_of<float, L, A>, detail::run_fused<A>, options.threads);
}

/// Rotates queries in place, and writes rotated keys and unchanged values to the slots of a cache. k is not changed.
template <Layout L, class T, class A = native_arch>
void append(const view<T>& q, const std::type_identity_t<view<const T>>& k,
            const std::type_identity_t<view<const T>>& v, const kv_cache& cache, const cache_slots& slots,
            const Encoding& encoding, const positions& positions, const options& options = {}) {
    static_assert(!std::is_const_v<T>, "rotating in place writes: const elements need an output of their own");
    fused<L, T, A>({q, k, v}, {q, {}, {}}, {.cache = cache, .slots = slots}, encoding, positions, options);
}

/// Rotates the rotary parts of queries in place, and writes one row per token to a cache of multi-head latent
/// attention: latent [batch, tokens, 1, latent_dim], then rotated k_rope [batch, tokens, 1, rope_dim]. See mla_cache().
template <Layout L, class T, class A = native_arch>
void append_mla(const view<T>& q_rope, const std::type_identity_t<view<const T>>& k_rope,
                const std::type_identity_t<view<const T>>& latent, const cache_tensor& cache, const cache_slots& slots,
                const Encoding& encoding, const positions& positions, const options& options = {}) {
    append<L, T, A>(q_rope, k_rope, latent, mla_cache(cache, latent.head_dim), slots, encoding, positions, options);
}

/// Norms and rotates queries and keys in place.
template <Layout L, class T, class A = native_arch>
void norm_rotate(const view<T>& q, const view<T>& k, const head_norm& q_norm, const head_norm& k_norm,
                 const Encoding& encoding, const positions& positions, const options& options = {}) {
    static_assert(!std::is_const_v<T>, "rotating in place writes: const elements need an output of their own");
    fused<L, T, A>({q, k, {}}, {q, k, {}}, {.q_norm = q_norm, .k_norm = k_norm}, encoding, positions, options);
}

/// Prepares fused calls on tensors and caches with these shapes, strides and types, at any address. Validates like
/// cpu::fused(), here and not in run().
template <Layout L, class T, class A = native_arch>
prepared_fused prepare_fused(const std::type_identity_t<qkv<const T>>& in, const qkv<T>& out, const fusion& with,
                             const Encoding& encoding, const options& options = {}) {
    static_assert(Element<T>, "fused calls take float, f16 and bf16");
    fused_args args = make_fused_args<T>(kind_of<L>, in, out, with, encoding, offset{0}, options.table);
    args.rotation.direction = options.direction;
    return {kernel_of<T, L, A>, kernel_of<float, L, A>, detail::run_fused<A>, args, tuning_of(options)};
}

}  // namespace ropewalk::cpu
