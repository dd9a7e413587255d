// Arguments of a re-rotation of keys in a cache, and their validation, on the CPU and on a GPU.
#pragma once

#include "ropewalk/rotation/fused_checks.hpp"

namespace ropewalk {

/// The cached tokens of a call, [batch, tokens], and their slots. A slot mapping and cu_seqlens have a batch of 1.
struct cached_tokens {
    cache_slots slots{};
    std::int64_t tokens = 0;
    std::int64_t batch = 1;
};

/// A re-rotation of cached keys as the caller asks for it. Nothing in it is validated: see
/// make_rerotate_cache_params().
struct rerotate_cache_args {
    layout_kind layout = layout_kind::half_split;
    cache_tensor keys{};
    cached_tokens at{};
    const Encoding* source = nullptr;  ///< the encoding that the keys have now
    positions source_positions{};
    const Encoding* target = nullptr;
    positions target_positions{};
};

/// A validated re-rotation of cached keys.
struct rerotate_cache_params {
    rotate_params rotation{};  ///< its k has the shape of the tokens of the call and no memory
    cache_tensor keys{};
    slot_reader slots{};
};

namespace detail {
inline namespace RW_ISA {

/// The type of the arithmetic on a type of caches, and therefore the range of its magnitudes.
constexpr element_type arithmetic_type(cache_type type) {
    return type == cache_type::f16    ? element_type::f16
           : type == cache_type::bf16 ? element_type::bf16
                                      : element_type::f32;
}

/// Keys with the shape of a call, for the checks of a rotation, which read no elements.
inline tensor keys_of_tokens(const rerotate_cache_args& args) {
    alignas(8) static char no_elements[8];
    tensor keys{.data = no_elements,
                .type = arithmetic_type(args.keys.type),
                .batch = args.at.batch,
                .tokens = args.at.tokens,
                .heads = args.keys.heads,
                .head_dim = args.keys.head_dim,
                .stride_token = next_stride(args.keys.heads, args.keys.head_dim),
                .stride_head = args.keys.head_dim};
    keys.stride_batch = next_stride(keys.tokens, keys.stride_token);
    return keys;
}

inline void check_rerotation_of_cache(const rerotate_cache_args& args) {
    const cache_tensor& keys = args.keys;
    RW_EXPECTS(args.at.tokens >= 0 && args.at.batch >= 0, "batch and tokens must not be negative, got {} and {}",
               args.at.batch, args.at.tokens);
    RW_EXPECTS(keys.exists() || keys.elements() == 0, "{} has no memory", shape_of("the cache of k", keys));
    RW_EXPECTS(keys.heads >= 0 && keys.head_dim == args.target->geometry.head_dim,
               "{}: the encoding is for head_dim {}", shape_of("the cache of k", keys), args.target->geometry.head_dim);
    RW_EXPECTS(keys.pages >= 0 && keys.page_size > 0, "{}: pages must not be negative and page_size must be positive",
               shape_of("the cache of k", keys));
}

}  // namespace RW_ISA
}  // namespace detail

inline namespace RW_ISA {

/// Validates a re-rotation of cached keys. `make_rotation(rotate_args)` validates the rotation and returns its
/// parameters.
template <class MakeRotation>
rerotate_cache_params make_rerotate_cache_params(const rerotate_cache_args& args, memory_space space,
                                                 const MakeRotation& make_rotation) {
    detail::check_rerotation_of_cache(args);
    const tensor tokens = detail::keys_of_tokens(args);
    rerotate_cache_params params{
        .rotation = make_rotation(rerotation_args(args.layout, tokens, tokens, *args.source, args.source_positions,
                                                  *args.target, args.target_positions)),
        .keys = args.keys};
    detail::check_cache("the cache of k", args.keys, tokens);
    rotate_params call;  // params.rotation has no tokens where heads have no elements
    call.k_in = tokens;
    detail::check_slots(args.at.slots, args.keys, call);
    fusion with;
    with.cache.k = args.keys, with.slots = args.at.slots;
    params.slots = detail::make_slots(with, call, space);
    params.rotation.k_in.data = params.rotation.k_out.data = nullptr;
    return params;
}

}  // namespace RW_ISA
}  // namespace ropewalk
