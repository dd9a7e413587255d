// Checks of what a fused call has beside a rotation: values, norms, caches and slots. Kernels check nothing.
#pragma once

#include <cmath>

#include "ropewalk/gpu/fused.hpp"
#include "ropewalk/gpu/fused_job.hpp"
#include "ropewalk/gpu/plan.hpp"

namespace ropewalk::gpu::detail {

/// "cache of k f8e4m3 [pages 8, page_size 16, heads 2, head_dim 128] of strides [.., .., ..]"
inline std::string shape_of(std::string_view name, const cache_tensor& c) {
    return ropewalk::detail::format("{} {} [pages {}, page_size {}, heads {}, head_dim {}] of strides [{}, {}, {}]",
                                    name, to_string(c.type), c.pages, c.page_size, c.heads, c.head_dim, c.stride_page,
                                    c.stride_token, c.stride_head);
}

inline bool given(const tensor& t) { return t.exists() || t.heads != 0; }

/// Every part belongs to heads that are there, and all heads have somewhere to go.
inline void check_side(std::string_view name, const tensor& in, const tensor& out, const head_norm& norm,
                       const cache_tensor& cache) {
    RW_EXPECTS(given(in) || !given(out), "{} has an output but no input", name);
    RW_EXPECTS(given(in) || norm.weight == nullptr, "a norm of {} is given but no {}", name, name);
    RW_EXPECTS(given(in) || !cache.exists(), "a cache of {} is given but no {}", name, name);
    RW_EXPECTS(!given(in) || given(out) || cache.exists(), "{} has neither an output nor a cache to go to",
               ropewalk::detail::shape_of(name, in));
}

template <class In, class Out>
void check_sides(const In& in, const Out& out, const fusion& with) {
    RW_EXPECTS(given(in.q) || given(in.k) || !given(in.v), "values alone do not turn: copy them");
    check_side("q", in.q, out.q, with.q_norm, {});
    check_side("k", in.k, out.k, with.k_norm, with.cache.k);
    check_side("v", in.v, out.v, {}, with.cache.v);
}

/// Values beside queries and keys whose own checks have passed.
inline void check_values(const tensor& v, const tensor& out, const ropewalk::rotate_params& work, bool with_keys) {
    if (!given(v)) return;
    using ropewalk::detail::may_overlap;
    using ropewalk::detail::shape_of;
    ropewalk::detail::check_tensor("v", v, v.head_dim);
    const tensor& t = work.any();
    RW_EXPECTS(v.type == t.type, "v is {} but q and k are {}", to_string(v.type), to_string(t.type));
    RW_EXPECTS(v.batch == t.batch && v.tokens == t.tokens, "v must have the batch and tokens of q and k, got {} and {}",
               shape_of("v", v), shape_of("theirs", t));
    RW_EXPECTS(!with_keys || v.heads == work.k_in.heads, "v has {} heads but k has {}", v.heads, work.k_in.heads);
    if (given(out)) {
        ropewalk::detail::check_tensor("v's output", out, v.head_dim);
        ropewalk::detail::check_output("v", v, out);
    }
    RW_EXPECTS(!may_overlap(v, work.q_out) && !may_overlap(v, work.k_out), "an output of q or k overlaps v: {}",
               shape_of("v", v));
    for (const tensor* const other : {&work.q_in, &work.k_in, &work.q_out, &work.k_out})
        RW_EXPECTS(!may_overlap(out, *other), "the output of v overlaps q or k: {} at {}", shape_of("v", out),
                   out.data);
}

/// The axes of a cache in the words of a tensor, without its type.
inline tensor axes_of(const cache_tensor& c) {
    return {nullptr,    element_type::f32, c.pages,        c.page_size,   c.heads,
            c.head_dim, c.stride_page,     c.stride_token, c.stride_head, 1};
}
using ropewalk::detail::range_of;
inline ropewalk::detail::byte_range range_of(const cache_tensor& c) {
    return range_of(axes_of(c), c.data, static_cast<std::uintptr_t>(size_of(c.type)));
}

/// What an element type wants beside the elements.
inline void check_scales(std::string_view name, const cache_tensor& c) {
    if (c.type == cache_type::f8e4m3)
        RW_EXPECTS(c.scale >= 0x1p-64F && c.scale <= 0x1p64F, "{}: the scale must lie within 2^-64 and 2^64, got {}",
                   shape_of(name, c), c.scale);
    RW_EXPECTS(c.type == cache_type::i8 || c.scales == nullptr, "{}: scales a head belong to i8", shape_of(name, c));
    if (c.type != cache_type::i8) return;
    RW_EXPECTS(c.scales != nullptr, "{} needs scales [pages, page_size, heads]", shape_of(name, c));
    RW_EXPECTS(reinterpret_cast<std::uintptr_t>(c.scales) % sizeof(float) == 0,
               "{}: the scales at {} are not aligned to the 4 bytes of f32", shape_of(name, c), c.scales);
    tensor axes = axes_of(c);
    axes.head_dim = 1;
    axes.stride_batch = c.scale_stride_page, axes.stride_token = c.scale_stride_token;
    axes.stride_head = c.scale_stride_head;
    RW_EXPECTS(ropewalk::detail::overlapping_axis(axes) == nullptr, "{}: scales of strides [{}, {}, {}] share memory",
               shape_of(name, c), c.scale_stride_page, c.scale_stride_token, c.scale_stride_head);
}

/// One half of a cache for the heads that go there.
inline void check_cache(std::string_view name, const cache_tensor& c, const tensor& heads) {
    if (!c.exists()) return;
    RW_EXPECTS(c.pages >= 0 && c.page_size > 0, "{}: no extent may be negative, and a page holds one token at least",
               shape_of(name, c));
    RW_EXPECTS(c.heads == heads.heads && c.head_dim == heads.head_dim, "{} does not fit heads {}", shape_of(name, c),
               ropewalk::detail::shape_of("", heads));
    RW_EXPECTS(reinterpret_cast<std::uintptr_t>(c.data) % static_cast<std::uintptr_t>(size_of(c.type)) == 0,
               "{}: address {} is not aligned to the {} bytes of an element", shape_of(name, c), c.data,
               size_of(c.type));
    const char* const folded = ropewalk::detail::overlapping_axis(axes_of(c));
    RW_EXPECTS(folded == nullptr || c.elements() == 0, "{}: its elements share memory, so it cannot be written",
               shape_of(name, c));
    check_scales(name, c);
}

/// Slots which the host knows to lie outside a cache are an error.
inline void check_slots(const cache_slots& slots, const cache_tensor& cache, const ropewalk::rotate_params& work) {
    using kind = cache_slots::kind;
    const std::int64_t tokens = work.tokens(), batch = work.batch();
    RW_EXPECTS(slots.how != kind::none, "a cache is given but no slots of it");
    if (slots.how == kind::mapping32 || slots.how == kind::mapping64) {
        RW_EXPECTS(slots.count == batch * tokens, "the slot mapping has {} entries for {} tokens", slots.count,
                   batch * tokens);
        const std::size_t size = slots.how == kind::mapping32 ? 4 : 8;
        RW_EXPECTS(slots.mapping != nullptr || slots.count == 0, "the slot mapping of {} tokens is a null pointer",
                   slots.count);
        RW_EXPECTS(reinterpret_cast<std::uintptr_t>(slots.mapping) % size == 0,
                   "the slot mapping at {} is not aligned to the {} bytes of an entry", slots.mapping, size);
        return;
    }
    const positions& at = slots.entries;
    RW_EXPECTS(at.source != positions::kind::fixed && at.axes == 1,
               "entries of a cache are whole numbers, one a token");
    const std::int64_t sequences = at.ragged() ? at.count - 1 : batch;
    std::int64_t capacity = cache.page_size;
    if (slots.how == kind::by_sequence) {
        RW_EXPECTS(cache.pages >= sequences, "{} has room for {} sequences, there are {}", shape_of("the cache", cache),
                   cache.pages, sequences);
    } else {
        RW_EXPECTS(slots.table != nullptr || slots.sequences * slots.max_pages == 0,
                   "the page table [{}, {}] is a null pointer", slots.sequences, slots.max_pages);
        RW_EXPECTS(reinterpret_cast<std::uintptr_t>(slots.table) % sizeof(std::int32_t) == 0,
                   "the page table at {} is not aligned to the 4 bytes of an entry", slots.table);
        RW_EXPECTS(slots.sequences == sequences, "the page table has {} rows for {} sequences", slots.sequences,
                   sequences);
        capacity *= slots.max_pages;
    }
    if (at.source != positions::kind::offset || tokens == 0) return;
    RW_EXPECTS(at.first >= 0 && at.first <= capacity - tokens,
               "{} tokens from entry {} on do not fit into the {} entries of a sequence", tokens, at.first, capacity);
}

inline void check_norm(std::string_view name, const head_norm& norm) {
    if (norm.weight == nullptr) return;
    RW_EXPECTS(reinterpret_cast<std::uintptr_t>(norm.weight) % size_of(norm.type) == 0,
               "the norm's weights of {} at {} are not aligned to the {} bytes of {}", name, norm.weight,
               size_of(norm.type), to_string(norm.type));
    RW_EXPECTS(std::isfinite(norm.epsilon) && norm.epsilon >= 0,
               "the norm's epsilon of {} must not be negative, got {}", name, norm.epsilon);
}

/// Norms, caches and slots of a call whose tensors have passed.
inline void check_fusion(const fusion& with, const ropewalk::rotate_params& work, const tensor& v,
                         const tensor& v_out) {
    check_norm("q", with.q_norm);
    check_norm("k", with.k_norm);
    const cache_tensor &k_cache = with.cache.k, &v_cache = with.cache.v;
    if (!k_cache.exists() && !v_cache.exists()) {
        RW_EXPECTS(with.slots.how == cache_slots::kind::none, "slots are given but no cache");
        return;
    }
    check_cache("the cache of k", k_cache, work.k_in);
    check_cache("the cache of v", v_cache, v);
    if (k_cache.exists() && v_cache.exists()) {
        RW_EXPECTS(k_cache.pages == v_cache.pages && k_cache.page_size == v_cache.page_size,
                   "k and v must have the same pages, got {} and {}", shape_of("the cache of k", k_cache),
                   shape_of("the cache of v", v_cache));
        RW_EXPECTS(k_cache.data != v_cache.data, "k and v cannot share the cache at {}", k_cache.data);
    }
    check_slots(with.slots, k_cache.exists() ? k_cache : v_cache, work);
    for (const cache_tensor* const cache : {&k_cache, &v_cache}) {
        if (!cache->exists()) continue;
        for (const tensor* const t : {&work.q_in, &work.k_in, &v, &work.q_out, &work.k_out, &v_out})
            RW_EXPECTS(!t->exists() || !range_of(*t).overlaps(range_of(*cache)), "{} at {} overlaps {} at {}",
                       shape_of("the cache", *cache), cache->data, ropewalk::detail::shape_of("heads", *t), t->data);
    }
}

/// The slots of a checked call as a kernel finds them.
inline slot_source slots_of(const fusion& with, const ropewalk::rotate_params& work) {
    const cache_slots& slots = with.slots;
    slot_source made;
    made.how = slots.how;
    if (slots.how == cache_slots::kind::none) return made;
    const cache_tensor& cache = with.cache.k.exists() ? with.cache.k : with.cache.v;
    made.pages = cache.pages, made.page_size = cache.page_size;
    if (slots.how == cache_slots::kind::mapping32 || slots.how == cache_slots::kind::mapping64) {
        made.mapping = slots.mapping;
        return made;
    }
    made.entries = read_positions(slots.entries, work.batch(), work.tokens(), memory_space::device);
    made.table = slots.table, made.sequences = slots.sequences, made.max_pages = slots.max_pages;
    made.stride_sequence = slots.stride_sequence;
    return made;
}

/// A warp holds a head of at most so many elements.
inline void check_width(std::int64_t head_dim, int v) {
    RW_EXPECTS(head_dim <= 2 * most_pairs, "a head of {} elements is wider than the {} that fused kernels take",
               head_dim, 2 * most_pairs);
    RW_EXPECTS(
        v > 1 || head_dim <= 2 * few_pairs,
        "fused kernels take heads wider than {} in accesses of 16 bytes only, which the addresses, the strides or "
        "the widths of this call of head_dim {} do not allow",
        2 * few_pairs, head_dim);
}

}  // namespace ropewalk::gpu::detail
