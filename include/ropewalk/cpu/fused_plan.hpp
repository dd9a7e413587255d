// Plan of a fused call on the CPU: from the caller's arguments to the parameters of a kernel.
#pragma once

#include "ropewalk/cpu/execute.hpp"
#include "ropewalk/cpu/fused_params.hpp"
#include "ropewalk/cpu/plan.hpp"
#include "ropewalk/rotation/fused_checks.hpp"
#include "ropewalk/rotation/slot_checks.hpp"

namespace ropewalk::cpu {

/// Parameters of a fused kernel, which lacks its rotate_kernels, and the drawn positions that they point to.
struct fused_plan {
    fused_params params;
    std::vector<fixed_position> drawn;
};

namespace detail {
inline namespace RW_ISA {

/// An output as a destination by batch row and token.
inline cache_tensor destination_of(const tensor& out) {
    return {.data = out.data,
            .type = cache_type_of(out.type),
            .pages = out.batch,
            .page_size = out.tokens,
            .heads = out.heads,
            .head_dim = out.head_dim,
            .stride_page = out.stride_batch,
            .stride_token = out.stride_token,
            .stride_head = out.stride_head};
}

/// A destination whose scale is a value.
inline cache_tensor with_scale(const char* name, cache_tensor c) {
    if (!c.exists() || c.scale_at == nullptr) return c;
    c.scale = *c.scale_at, c.scale_at = nullptr;
    ropewalk::detail::check_scales(name, c);
    return c;
}

/// Sets a side, except for the cache, which queries lack. In place: copies would cost a call of one token a tenth of
/// its time.
inline void set_side(fused_side& side, const tensor& in, const tensor& out, const char* name,
                     const cache_tensor& quantised) {
    if (!in.exists() || in.elements() == 0) return;
    side.in = in;
    side.by_token = quantised.exists() ? with_scale(name, quantised) : destination_of(out);
    side.keeps_type = !side.by_token.exists() || side.by_token.type == cache_type_of(in.type);
}
inline void set_cache(fused_side& side, const char* name, const cache_tensor& cache) {
    if (!side.in.exists() || !cache.exists()) return;
    side.cache = with_scale(name, cache);
    side.keeps_type = side.keeps_type && cache.type == cache_type_of(side.in.type);
}
inline void set_norm(fused_side& side, const head_norm& norm) {
    if (!side.in.exists() || norm.weight == nullptr) return;
    side.norm = norm;
    side.keeps_type = false;
}

}  // namespace RW_ISA
}  // namespace detail

inline namespace RW_ISA {

/// Validates the arguments and chooses the loops. Encodings, positions, slots and table must outlive the plan. Throws
/// ropewalk::error where make_fused_params() does, where a slot lies outside the cache, and where a scale in memory is
/// out of range.
inline fused_plan make_fused_plan(const fused_args& args, const tuning_profile& tuning = machine_profile()) {
    RW_EXPECTS(args.rotation.any().type != element_type::f64,
               "fused calls take f32, f16 and bf16, got f64: convert the tensors to f32");
    rotate_plan rotation;
    const ropewalk::fused_params valid = make_fused_params(args, memory_space::host, [&](const rotate_args& completed) {
        rotation = make_plan(completed, false, tuning);
        ropewalk::rotate_params params = rotation.params;
        // A plan without elements has no tokens, but there may be values to store.
        params.q_in.batch = completed.q_in.batch, params.q_in.tokens = completed.q_in.tokens;
        params.k_in.batch = completed.k_in.batch, params.k_in.tokens = completed.k_in.tokens;
        return params;
    });
    fused_plan plan{.params = {}, .drawn = std::move(rotation.target_positions)};
    fused_params& params = plan.params;
    params.rotation = rotation.params;
    params.slots = valid.slots;
    const auto& with = valid.with;
    auto& [q, k, v] = params.sides;
    detail::set_side(q, valid.rotation.q_in, valid.rotation.q_out, "the quantised output of q", with.quantised.q);
    detail::set_side(k, valid.rotation.k_in, valid.rotation.k_out, "the quantised output of k", with.quantised.k);
    detail::set_side(v, valid.v_in, valid.v_out, "the quantised output of v", with.quantised.v);
    detail::set_cache(k, "the cache of k", with.cache.k);
    detail::set_cache(v, "the cache of v", with.cache.v);
    detail::set_norm(q, with.q_norm);
    detail::set_norm(k, with.k_norm);
    q.rotates = k.rotates = k.is_key = true;
    std::int64_t elements = 0;
    for (const fused_side& side : params.sides) elements += side.in.elements();
    if (elements == 0) return plan;
    params.batch = valid.rotation.batch(), params.row_tokens = valid.rotation.tokens();
    params.bytes = elements * static_cast<std::int64_t>(size_of(args.rotation.any().type));
    ropewalk::detail::check_slot_values(params.slots, params.batch, params.row_tokens);
    return plan;
}

/// Runs a fused kernel over all tokens.
RW_INLINE void execute(fused_params& params, const rotate_kernel& typed, const rotate_kernel& floats,
                       fused_function kernel, const threads& given) {
    params.typed = &typed, params.floats = &floats;
    execute(params.batch * params.row_tokens, params.bytes, params.rotation.loop.bytes_per_thread,
            detail::fused_scratch(params), given,
            [&](std::int64_t begin, std::int64_t end, float* scratch) { kernel(params, begin, end, scratch); });
}

}  // namespace RW_ISA
}  // namespace ropewalk::cpu
