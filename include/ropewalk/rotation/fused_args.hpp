// Arguments of a fused call, on the CPU and on a GPU: norms, queries, keys, values and a cache.
#pragma once

#include "ropewalk/core/view.hpp"
#include "ropewalk/rotation/args.hpp"
#include "ropewalk/rotation/cache.hpp"

namespace ropewalk {

/// RMSNorm over the elements of each head (arXiv 1910.07467), as in models that norm queries and keys:
/// x / √(mean(x²) + epsilon) · weight. Arithmetic is float32 without intermediate rounding to the element type.
struct head_norm {
    const void* weight = nullptr;  ///< [head_dim]; null: no norm
    element_type type = element_type::f32;
    double epsilon = 1e-6;
    bool one_plus = false;  ///< multiplies by 1 + weight (Gemma)

    constexpr head_norm() = default;
    template <Element W>
    constexpr explicit head_norm(const W* weights, double epsilon_ = 1e-6, bool one_plus_ = false)
        : weight(weights), type(type_of<W>), epsilon(epsilon_), one_plus(one_plus_) {}
};

/// Queries, keys and values of one call: [batch, tokens, heads, head_dim]. Each may be absent (view<T>{}).
template <class T>
struct qkv {
    view<T> q, k, v;

    /// Converts to read-only views.
    template <class Read>
        requires(!std::is_const_v<T> && std::same_as<Read, const T>)
    constexpr operator qkv<Read>() const {  // NOLINT(google-explicit-constructor)
        return {q, k, v};
    }
};

/// The heads of queries, keys and values in the output of a packed projection: [tokens, (q_heads + 2 · kv_heads) ·
/// head_dim], queries first. Throws where the width differs.
template <class T>
qkv<T> split_qkv(T* packed, std::int64_t tokens, std::int64_t width, std::int64_t q_heads, std::int64_t kv_heads,
                 std::int64_t head_dim) {
    RW_EXPECTS(q_heads >= 0 && kv_heads >= 0 && width == (q_heads + 2 * kv_heads) * head_dim,
               "a packed row of {} elements is not {} + 2 · {} heads of {}", width, q_heads, kv_heads, head_dim);
    const auto heads = [&](std::int64_t first, std::int64_t count) {
        return view<T>(packed + first * head_dim, 1, tokens, count, head_dim, tokens * width, width, head_dim);
    };
    return {heads(0, q_heads), heads(q_heads, kv_heads), heads(q_heads + kv_heads, kv_heads)};
}

/// The two parts of a cache of multi-head latent attention (DeepSeek-V2, arXiv 2405.04434), which stores one head per
/// token: the first latent_dim elements as values, and the rest, which is rotated, as keys. With the latent vectors as
/// v and the rotary part as k, one append stores both. Throws for an absent cache, more heads and int8, whose two parts
/// would have one scale.
inline kv_cache mla_cache(const cache_tensor& whole, std::int64_t latent_dim) {
    RW_EXPECTS(whole.exists() && whole.heads == 1,
               "a cache of multi-head latent attention has one head per token, got {}",
               whole.exists() ? whole.heads : 0);
    RW_EXPECTS(latent_dim > 0 && latent_dim < whole.head_dim,
               "a latent part of {} elements leaves no rotary part in a cache of {}", latent_dim, whole.head_dim);
    RW_EXPECTS(whole.type != cache_type::i8, "the latent and the rotary part cannot share the scale of an i8 head");
    kv_cache parts{.k = whole, .v = whole};
    parts.k.data = static_cast<char*>(whole.data) + latent_dim * size_of(whole.type);
    parts.k.head_dim = whole.head_dim - latent_dim, parts.v.head_dim = latent_dim;
    return parts;
}

/// Results in a type of caches: pages are batch rows, and entries of a page are tokens. Each may be absent.
struct quantised_outputs {
    cache_tensor q, k, v;
};

/// Optional fused steps: norms before the rotation, a cache that stores the results, and outputs of another type.
struct fusion {
    head_norm q_norm{}, k_norm{};
    kv_cache cache{};
    cache_slots slots{};
    quantised_outputs quantised{};  ///< each in place of the ordinary output
};

/// A fused call as the caller asks for it. Nothing in it is validated: see make_fused_params().
struct fused_args {
    rotate_args rotation{};  ///< queries and keys
    tensor v_in{}, v_out{};
    fusion with{};
};

/// Arguments of a fused call on views.
template <class T>
RW_INLINE fused_args make_fused_args(layout_kind layout, const qkv<const T>& in, const qkv<T>& out, const fusion& with,
                                     const Encoding& encoding, const positions& positions, const cos_sin_table& table) {
    // A named object: in a template, nvcc 13 cannot compile a braced argument with designators.
    const rotate_args rotation{.layout = layout,
                               .q_in = in.q,
                               .k_in = in.k,
                               .q_out = out.q,
                               .k_out = out.k,
                               .target = &encoding,
                               .target_positions = positions,
                               .table = table};
    fused_args args;
    args.rotation = rotation, args.v_in = in.v, args.v_out = out.v, args.with = with;
    return args;
}

}  // namespace ropewalk
