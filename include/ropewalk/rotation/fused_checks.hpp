// Validation of the parts of a fused call that a rotation lacks: values, norms, caches and slots.
#pragma once

#include <cmath>

#include "ropewalk/rotation/fused_args.hpp"
#include "ropewalk/rotation/fused_params.hpp"
#include "ropewalk/rotation/make_params.hpp"

namespace ropewalk::detail {
inline namespace RW_ISA {

/// "cache of k f8e4m3 [pages 8, page_size 16, heads 2, head_dim 128] of strides [.., .., ..]"
inline std::string shape_of(std::string_view name, const cache_tensor& c) {
    return format("{} {} [pages {}, page_size {}, heads {}, head_dim {}] of strides [{}, {}, {}]", name,
                  to_string(c.type), c.pages, c.page_size, c.heads, c.head_dim, c.stride_page, c.stride_token,
                  c.stride_head);
}

/// Shape and strides of a cache as those of a tensor, without memory and type.
inline tensor axes_of(const cache_tensor& c) {
    return {.batch = c.pages,
            .tokens = c.page_size,
            .heads = c.heads,
            .head_dim = c.head_dim,
            .stride_batch = c.stride_page,
            .stride_token = c.stride_token,
            .stride_head = c.stride_head};
}
inline byte_range range_of(const cache_tensor& c) {
    return range_of(axes_of(c), c.data, static_cast<std::uintptr_t>(size_of(c.type)));
}

/// Returns whether two caches may share memory. Elements of one may lie between those of the other: pages of keys
/// between pages of values, or both in one row.
inline bool may_overlap(const cache_tensor& a, const cache_tensor& b) {
    if (!a.exists() || !b.exists()) return false;
    const byte_range a_bytes = range_of(a), b_bytes = range_of(b);
    if (size_of(a.type) != size_of(b.type)) return a_bytes.overlaps(b_bytes);
    return may_overlap(axes_of(a), a_bytes, axes_of(b), b_bytes, static_cast<std::uintptr_t>(size_of(a.type)));
}

inline bool given(const tensor& t) { return t.exists() || t.heads != 0; }

/// Checks that every part of a side has its heads, and that the heads have a destination.
inline void check_side(std::string_view name, const tensor& in, const tensor& out, const head_norm& norm,
                       const cache_tensor& cache, const cache_tensor& quantised) {
    RW_EXPECTS(given(in) || !given(out), "{} has an output but no input", name);
    RW_EXPECTS(given(in) || !quantised.exists(), "{} has a quantised output but no input", name);
    RW_EXPECTS(given(in) || norm.weight == nullptr, "a norm of {} is given but no {}", name, name);
    RW_EXPECTS(given(in) || !cache.exists(), "a cache of {} is given but no {}", name, name);
    RW_EXPECTS(!given(out) || !quantised.exists(), "{} has two outputs, {} and {}; give one of them", name,
               shape_of("one", out), shape_of("a quantised one", quantised));
    RW_EXPECTS(!given(in) || given(out) || cache.exists() || quantised.exists(), "{} has neither an output nor a cache",
               shape_of(name, in));
}

/// Checks values together with validated queries and keys.
inline void check_values(const tensor& v, const tensor& out, const rotate_params& params, bool has_keys) {
    if (!given(v)) return;
    check_tensor("v", v, v.head_dim);
    const tensor& t = params.any();
    RW_EXPECTS(v.type == t.type, "v is {} but q and k are {}", to_string(v.type), to_string(t.type));
    RW_EXPECTS(v.batch == t.batch && v.tokens == t.tokens, "v must have the batch and tokens of q and k, got {} and {}",
               shape_of("v", v), shape_of("q or k", t));
    RW_EXPECTS(!has_keys || v.heads == params.k_in.heads, "v has {} heads but k has {}", v.heads, params.k_in.heads);
    if (given(out)) {
        check_tensor("v's output", out, v.head_dim);
        check_output("v", v, out);
    }
    RW_EXPECTS(!may_overlap(v, params.q_out) && !may_overlap(v, params.k_out), "an output of q or k overlaps v: {}",
               shape_of("v", v));
    for (const tensor* const other : {&params.q_in, &params.k_in, &params.q_out, &params.k_out})
        RW_EXPECTS(!may_overlap(out, *other), "the output of v overlaps q or k: {} at {}", shape_of("v", out),
                   out.data);
}

/// Checks the scales that the element type of a cache needs.
inline void check_scales(std::string_view name, const cache_tensor& c) {
    RW_EXPECTS(!is_f8(c.type) || (c.scale >= 0x1p-64F && c.scale <= 0x1p64F),
               "{}: the scale must lie within 2^-64 and 2^64, got {}", shape_of(name, c), c.scale);
    RW_EXPECTS(is_f8(c.type) || c.scale_at == nullptr, "{}: only f8 caches have a scale in memory", shape_of(name, c));
    RW_EXPECTS(reinterpret_cast<std::uintptr_t>(c.scale_at) % sizeof(float) == 0,
               "{}: the scale at {} is not aligned to the 4 bytes of f32", shape_of(name, c), c.scale_at);
    RW_EXPECTS(c.type == cache_type::i8 || c.scales == nullptr, "{}: only i8 caches have scales per head",
               shape_of(name, c));
    if (c.type != cache_type::i8) return;
    RW_EXPECTS(c.scales != nullptr, "{} needs scales [pages, page_size, heads]", shape_of(name, c));
    RW_EXPECTS(reinterpret_cast<std::uintptr_t>(c.scales) % sizeof(float) == 0,
               "{}: the scales at {} are not aligned to the 4 bytes of f32", shape_of(name, c), c.scales);
    const tensor axes{.batch = c.pages,
                      .tokens = c.page_size,
                      .heads = c.heads,
                      .head_dim = 1,
                      .stride_batch = c.scale_stride_page,
                      .stride_token = c.scale_stride_token,
                      .stride_head = c.scale_stride_head};
    RW_EXPECTS(axes.elements() == 0 || axes.reach() <= max_reach,
               "{}: scales of strides [{}, {}, {}] reach farther than 2^56 elements", shape_of(name, c),
               c.scale_stride_page, c.scale_stride_token, c.scale_stride_head);
    RW_EXPECTS(overlapping_axis(axes) == nullptr, "{}: scales of strides [{}, {}, {}] share memory", shape_of(name, c),
               c.scale_stride_page, c.scale_stride_token, c.scale_stride_head);
}

/// Checks the keys or the values of a cache against the heads to store.
inline void check_cache(std::string_view name, const cache_tensor& c, const tensor& heads) {
    if (!c.exists()) return;
    RW_EXPECTS(c.pages >= 0 && c.page_size > 0, "{}: pages must not be negative and page_size must be positive",
               shape_of(name, c));
    RW_EXPECTS(c.heads == heads.heads && c.head_dim == heads.head_dim, "{} does not fit {}", shape_of(name, c),
               shape_of("heads", heads));
    RW_EXPECTS(reinterpret_cast<std::uintptr_t>(c.data) % static_cast<std::uintptr_t>(size_of(c.type)) == 0,
               "{}: address {} is not aligned to the {} bytes of an element", shape_of(name, c), c.data,
               size_of(c.type));
    RW_EXPECTS(c.elements() == 0 || axes_of(c).reach() <= max_reach, "{}: its strides reach farther than 2^56 elements",
               shape_of(name, c));
    RW_EXPECTS(c.elements() == 0 || overlapping_axis(axes_of(c)) == nullptr,
               "{}: its elements share memory, so it cannot be written", shape_of(name, c));
    check_scales(name, c);
}

/// The product of two extents, at most 2^63 − 1.
constexpr std::int64_t product_of(std::int64_t a, std::int64_t b) {
    return static_cast<std::int64_t>(saturating_product(static_cast<std::uint64_t>(a), static_cast<std::uint64_t>(b)));
}

/// Checks everything about slots that the host knows.
inline void check_slots(const cache_slots& slots, const cache_tensor& cache, const rotate_params& params) {
    using kind = cache_slots::kind;
    const std::int64_t tokens = params.tokens(), batch = params.batch();
    RW_EXPECTS(slots.source != kind::none, "a cache is given but no slots; set slots to the cache slots of the tokens");
    if (slots.source == kind::mapping32 || slots.source == kind::mapping64) {
        const std::int64_t all = product_of(batch, tokens);
        RW_EXPECTS(slots.count == all, "slot_mapping has {} entries for {} tokens", slots.count, all);
        const std::size_t size = slots.source == kind::mapping32 ? 4 : 8;
        RW_EXPECTS(slots.mapping != nullptr || slots.count == 0, "the slot mapping of {} tokens is a null pointer",
                   slots.count);
        RW_EXPECTS(reinterpret_cast<std::uintptr_t>(slots.mapping) % size == 0,
                   "the slot mapping at {} is not aligned to the {} bytes of an entry", slots.mapping, size);
        return;
    }
    const positions& entries = slots.entries;
    RW_EXPECTS(entries.source != positions::kind::fixed && entries.axes == 1,
               "entries of a cache must be whole numbers, one per token");
    RW_EXPECTS(entries.source != positions::kind::shift,
               "entries of a cache must differ from token to token, got a shift by {}", entries.first);
    const std::int64_t sequences = entries.ragged() ? std::max<std::int64_t>(entries.count, 1) - 1 : batch;
    std::int64_t capacity = cache.page_size;
    if (slots.source == kind::by_sequence) {
        RW_EXPECTS(cache.pages >= sequences, "{} has room for {} sequences, there are {}", shape_of("the cache", cache),
                   cache.pages, sequences);
    } else if (slots.source == kind::page_list) {
        RW_EXPECTS(slots.sequences == sequences, "indptr has {} entries for {} sequences", slots.sequences + 1,
                   sequences);
        RW_EXPECTS(slots.starts != nullptr, "indptr is a null pointer");
        RW_EXPECTS(slots.table != nullptr || slots.max_pages == 0, "the list of {} pages is a null pointer",
                   slots.max_pages);
        for (const std::int32_t* const p : {slots.table, slots.starts, slots.last_page_len})
            RW_EXPECTS(reinterpret_cast<std::uintptr_t>(p) % sizeof(std::int32_t) == 0,
                       "the list of pages at {} is not aligned to the 4 bytes of an entry", p);
        RW_EXPECTS(slots.last_page_len == nullptr || entries.ragged(),
                   "last_page_len needs the cu_seqlens of the call as its entries");
        return;
    } else {
        const std::int64_t reach = reach_of(slots.max_pages, {{slots.sequences, slots.stride_sequence}});
        RW_EXPECTS(slots.max_pages >= 0 && reach <= max_reach,
                   "the page table [{}, {}] of stride {} has a negative extent or reaches farther than 2^56 entries",
                   slots.sequences, slots.max_pages, slots.stride_sequence);
        RW_EXPECTS(slots.table != nullptr || slots.sequences == 0 || slots.max_pages == 0,
                   "the page table [{}, {}] is a null pointer", slots.sequences, slots.max_pages);
        RW_EXPECTS(reinterpret_cast<std::uintptr_t>(slots.table) % sizeof(std::int32_t) == 0,
                   "the page table at {} is not aligned to the 4 bytes of an entry", slots.table);
        RW_EXPECTS(slots.sequences == sequences, "the page table has {} rows for {} sequences", slots.sequences,
                   sequences);
        capacity = product_of(capacity, slots.max_pages);
    }
    if (entries.source != positions::kind::offset || tokens == 0) return;
    RW_EXPECTS(entries.first >= 0 && entries.first <= capacity - tokens,
               "{} tokens from entry {} on do not fit into the {} entries of a sequence", tokens, entries.first,
               capacity);
}

inline void check_norm(std::string_view name, const head_norm& norm) {
    if (norm.weight == nullptr) return;
    RW_EXPECTS(reinterpret_cast<std::uintptr_t>(norm.weight) % size_of(norm.type) == 0,
               "the RMSNorm weight of {} at {} is not aligned to the {} bytes of {}", name, norm.weight,
               size_of(norm.type), to_string(norm.type));
    RW_EXPECTS(std::isfinite(norm.epsilon) && norm.epsilon >= 0,
               "the RMSNorm epsilon of {} must not be negative, got {}", name, norm.epsilon);
}

/// Checks that a cache shares no memory with the heads of a call.
inline void check_apart(std::string_view name, const cache_tensor& cache, const rotate_params& params, const tensor& v,
                        const tensor& v_out) {
    if (!cache.exists()) return;
    const byte_range written = range_of(cache);
    for (const tensor* const t : {&params.q_in, &params.k_in, &v, &params.q_out, &params.k_out, &v_out})
        RW_EXPECTS(!t->exists() || !range_of(*t).overlaps(written), "{} at {} overlaps {} at {}", shape_of(name, cache),
                   cache.data, shape_of("heads", *t), t->data);
}

/// Checks norms, caches, slots and quantised outputs of a call with validated tensors.
inline void check_fusion(const fusion& with, const rotate_params& params, const tensor& v, const tensor& v_out) {
    check_norm("q", with.q_norm);
    check_norm("k", with.k_norm);
    const cache_tensor &k_cache = with.cache.k, &v_cache = with.cache.v;
    const struct {
        const char* name;
        const cache_tensor& cache;
        const tensor& heads;
        bool by_token;
    } written[] = {{"the quantised output of q", with.quantised.q, params.q_in, true},
                   {"the quantised output of k", with.quantised.k, params.k_in, true},
                   {"the quantised output of v", with.quantised.v, v, true},
                   {"the cache of k", k_cache, params.k_in, false},
                   {"the cache of v", v_cache, v, false}};
    for (const auto& each : written) {
        RW_EXPECTS(!each.by_token || !each.cache.exists() ||
                       (each.cache.pages == each.heads.batch && each.cache.page_size == each.heads.tokens),
                   "{} does not fit {}", shape_of(each.name, each.cache), shape_of("heads", each.heads));
        if (each.by_token && each.heads.elements() == 0) continue;
        check_cache(each.name, each.cache, each.heads);
        check_apart(each.name, each.cache, params, v, v_out);
        for (const auto& other : written) {
            if (&other == &each) break;
            RW_EXPECTS(!may_overlap(each.cache, other.cache), "{} at {} overlaps {} at {}",
                       shape_of(each.name, each.cache), each.cache.data, shape_of(other.name, other.cache),
                       other.cache.data);
        }
    }
    if (!k_cache.exists() && !v_cache.exists()) {
        RW_EXPECTS(with.slots.source == cache_slots::kind::none, "slots are given but no cache");
        return;
    }
    RW_EXPECTS(!k_cache.exists() || !v_cache.exists() ||
                   (k_cache.pages == v_cache.pages && k_cache.page_size == v_cache.page_size),
               "k and v must have the same pages, got {} and {}", shape_of("the cache of k", k_cache),
               shape_of("the cache of v", v_cache));
    check_slots(with.slots, k_cache.exists() ? k_cache : v_cache, params);
}

/// The slots of a validated call.
inline slot_reader make_slots(const fusion& with, const rotate_params& params, memory_space space) {
    const cache_slots& slots = with.slots;
    if (slots.source == cache_slots::kind::none) return {};
    const cache_tensor& cache = with.cache.k.exists() ? with.cache.k : with.cache.v;
    slot_reader reader{slots};
    reader.pages = cache.pages, reader.page_size = cache.page_size;
    if (slots.source != cache_slots::kind::mapping32 && slots.source != cache_slots::kind::mapping64)
        reader.entry_reader = read_positions(slots.entries, params.batch(), params.tokens(), space);
    return reader;
}

}  // namespace RW_ISA
}  // namespace ropewalk::detail

namespace ropewalk {
inline namespace RW_ISA {

/// Validates a fused call and completes its parameters. `make_rotation(rotate_args)` validates the rotation and returns
/// its parameters. In place where input and output are the same; an input whose results go elsewhere needs no output.
template <class MakeRotation>
fused_params make_fused_params(const fused_args& args, memory_space space, const MakeRotation& make_rotation) {
    using detail::given;
    rotate_args rotation = args.rotation;
    const fusion& with = args.with;
    RW_EXPECTS(rotation.direction == direction::forward, "fused calls support only direction::forward; use rotate()");
    RW_EXPECTS(given(rotation.q_in) || given(rotation.k_in) || !given(args.v_in),
               "v without q and k leaves nothing to rotate; copy v instead");
    detail::check_side("q", rotation.q_in, rotation.q_out, with.q_norm, {}, with.quantised.q);
    detail::check_side("k", rotation.k_in, rotation.k_out, with.k_norm, with.cache.k, with.quantised.k);
    detail::check_side("v", args.v_in, args.v_out, {}, with.cache.v, with.quantised.v);
    // A rotation has outputs. Without one, its input stands in for it, and is not written.
    const bool q_stays = !rotation.q_out.exists(), k_stays = !rotation.k_out.exists();
    if (q_stays) rotation.q_out = rotation.q_in;
    if (k_stays) rotation.k_out = rotation.k_in;
    fused_params params{.rotation = make_rotation(rotation), .v_in = args.v_in, .v_out = args.v_out, .with = with};
    detail::check_values(params.v_in, params.v_out, params.rotation, rotation.k_in.exists());
    detail::check_fusion(with, params.rotation, params.v_in, params.v_out);
    detail::drop_unused_strides(params.v_in), detail::drop_unused_strides(params.v_out);
    if (q_stays) params.rotation.q_out = tensor{};
    if (k_stays) params.rotation.k_out = tensor{};
    params.slots = detail::make_slots(with, params.rotation, space);
    return params;
}

}  // namespace RW_ISA
}  // namespace ropewalk
