// Kernel of a fused call: norms, rotates and stores the heads of token after token.
#pragma once

#include "ropewalk/cpu/fused_heads.hpp"
#include "ropewalk/cpu/fused_params.hpp"
#include "ropewalk/cpu/traversal/tiles.hpp"

namespace ropewalk::cpu::detail {

/// Calls f(std::type_identity<T>) with an element type.
template <class F>
RW_INLINE void with_element(element_type type, const F& f) {
    if (type == element_type::f32) return f(std::type_identity<float>{});
    if (type == element_type::f16) return f(std::type_identity<f16>{});
    f(std::type_identity<bf16>{});
}

/// The heads of a destination at an entry of a page.
RW_INLINE head_target target_at(const cache_tensor& c, std::int64_t page, std::int64_t entry) {
    const std::int64_t element = page * c.stride_page + entry * c.stride_token;
    return {
        .data = static_cast<std::byte*>(c.data) + element * size_of(c.type),
        .step = c.stride_head,
        .type = c.type,
        .scale = c.scale,
        .scales = c.scales == nullptr ? nullptr : c.scales + page * c.scale_stride_page + entry * c.scale_stride_token,
        .scale_step = c.scale_stride_head};
}

/// A range of tokens of a fused call.
template <class A>
class fused_range {
public:
    fused_range(const fused_params& params, float* scratch) : params_(params), loops_(*params.typed, params.rotation) {
        set_row(scratch);
        float* next = scratch + prepared_row(params.rotation);
        for (int i = 0; i < 3; ++i) {
            const fused_side& side = params.sides[i];
            if (side.norm.weight == nullptr) continue;
            set_weights(side, next);
            weights_[i] = next;
            next += weight_scratch(side);
        }
        held_ = next;
    }

    void run(std::int64_t begin, std::int64_t end) {
        const std::int64_t tokens = params_.row_tokens;
        const bool rotates = params_.sides[0].in.exists() || params_.sides[1].in.exists();
        for (std::int64_t at = begin; at < end; ++at) {
            const quotient index = ropewalk::detail::divide(at, tokens);
            const cache_slot slot = params_.slots.source == cache_slots::kind::none
                                        ? cache_slot{}
                                        : slot_of_token(params_.slots, index.whole, index.rest, tokens);
            if (params_.rows != nullptr) {
                set_row(params_.rows + at * prepared_row(params_.rotation));
            } else if (rotates) {
                make_rows<A>(params_.arranging(), params_.rotation, index.whole, index.rest, rows_, pair_order_);
            }
            for (int i = 0; i < 3; ++i) {
                if (params_.sides[i].in.exists()) run_side(i, index.whole, index.rest, slot);
            }
        }
    }

private:
    using quotient = ropewalk::detail::quotient;

    /// Uses the memory of one row. A row is made in the block order of one kernel; meanwhile the scratch has it in the
    /// order of the pairs, which is that of the other kernel.
    void set_row(float* memory) {
        pair_order_ = memory, rows_ = memory + first_row(params_.rotation);
        const bool typed = params_.typed->arrange != nullptr, floats = params_.floats->arrange != nullptr;
        typed_row_ = typed || !floats ? rows_ : pair_order_;
        float_row_ = floats || !typed ? rows_ : pair_order_;
    }

    static void set_weights(const fused_side& side, float* weights) {
        with_element(side.norm.type, [&]<class W>(std::type_identity<W>) {
            widen_elements<A>(static_cast<const W*>(side.norm.weight), side.in.head_dim, weights);
        });
        if (!side.norm.one_plus) return;
        for (std::int64_t i = 0; i < side.in.head_dim; ++i) weights[i] += 1.0F;
    }

    [[nodiscard]] RW_INLINE const float* row_of(const float* row, const fused_side& side) const {
        return side.is_key ? row + key_row(params_.rotation) : row;
    }

    /// Writes the heads of one token to their destinations.
    void run_side(int i, std::int64_t batch_row, std::int64_t token, const cache_slot& slot) {
        const fused_side& side = params_.sides[i];
        const std::int64_t element = batch_row * side.in.stride_batch + token * side.in.stride_token;
        const std::byte* const in =
            static_cast<const std::byte*>(side.in.data) + element * static_cast<std::int64_t>(size_of(side.in.type));
        head_target targets[2];
        int count = 0;
        // The output comes last, because it may be the input.
        if (side.cache.exists() && slot.page >= 0) targets[count++] = target_at(side.cache, slot.page, slot.entry);
        if (side.by_token.exists()) targets[count++] = target_at(side.by_token, batch_row, token);
        if (side.keeps_type) {
            for (int t = 0; t < count; ++t) move_heads(side, in, targets[t]);
            return;
        }
        if (count == 0) return;
        const std::int64_t group = heads_at_once(side.in.head_dim);
        for (std::int64_t first = 0; first < side.in.heads; first += group) {
            const std::int64_t heads = side.in.heads - first < group ? side.in.heads - first : group;
            load_heads(side, weights_[i], in, first, heads);
            if (side.rotates && count == 1 && targets[0].type == cache_type::f32) {
                float* const out = static_cast<float*>(targets[0].data) + first * targets[0].step;
                rotate_held(side, out, targets[0].step, heads);
                continue;
            }
            if (side.rotates) rotate_held(side, held_, held_head(side.in.head_dim), heads);
            for (int t = 0; t < count; ++t) store_heads(side, targets[t], first, heads);
        }
    }

    /// Rotates or copies the heads of a token to a destination of the same type.
    void move_heads(const fused_side& side, const std::byte* in, const head_target& target) const {
        const std::int64_t size = params_.typed->element_bytes;
        const head_span span{in, static_cast<std::byte*>(target.data), side.in.heads, side.in.stride_head * size,
                             target.step * size};
        token_heads heads(span, side.in.head_dim * size);
        if (side.rotates) {
            heads.enter_rotary_part(*params_.typed, params_.rotation, 1);
            loops_.rotate(params_.rotation.pairs, row_of(typed_row_, side), heads.span);
            return;
        }
        if (span.in == span.out) return;
        const bool contiguous = span.in_stride == heads.head_bytes && span.out_stride == heads.head_bytes;
        const std::int64_t copies = contiguous ? 1 : span.count;
        const auto bytes = static_cast<std::size_t>(contiguous ? span.count * heads.head_bytes : heads.head_bytes);
        for (std::int64_t i = 0; i < copies; ++i)
            std::memcpy(span.out + i * span.out_stride, span.in + i * span.in_stride, bytes);
    }

    /// Widens the heads [first, first + count) into the scratch, normed if they have a norm.
    void load_heads(const fused_side& side, const float* weights, const std::byte* in, std::int64_t first,
                    std::int64_t count) const {
        const std::int64_t dim = side.in.head_dim, held = held_head(dim), stride = side.in.stride_head;
        with_element(side.in.type, [&]<class T>(std::type_identity<T>) {
            const T* const from = reinterpret_cast<const T*>(in) + first * stride;
            if (weights == nullptr) {
                for (std::int64_t head = 0; head < count; ++head)
                    widen_elements<A>(from + head * stride, dim, held_ + head * held);
                return;
            }
            const auto epsilon = static_cast<float>(side.norm.epsilon);
            const float reciprocal_dim = 1 / static_cast<float>(dim);
            // The sums of several heads run in parallel. Each head of the scratch keeps its factor until it is written.
            for (std::int64_t head = 0; head < count; ++head)
                held_[head * held] = sum_of_squares<A>(from + head * stride, dim);
            for (std::int64_t head = 0; head < count; ++head) {
                float& factor = held_[head * held];
                factor = 1.0F / __builtin_sqrtf(RW_FMA(factor, reciprocal_dim, epsilon));
            }
            for (std::int64_t head = 0; head < count; ++head)
                scale_head<A>(from + head * stride, dim, held_[head * held], weights, held_ + head * held);
        });
    }

    /// Rotates held heads to a destination of floats, which may be the scratch.
    void rotate_held(const fused_side& side, float* out, std::int64_t step, std::int64_t count) const {
        constexpr auto size = static_cast<std::int64_t>(sizeof(float));
        const std::int64_t dim = side.in.head_dim;
        const auto bytes = [](float* x) { return reinterpret_cast<std::byte*>(x); };
        token_heads heads({bytes(held_), bytes(out), count, held_head(dim) * size, step * size}, dim * size);
        heads.enter_rotary_part(*params_.floats, params_.rotation, 1);
        params_.floats->by_columns(params_.rotation.pairs, row_of(float_row_, side), heads.span, {});
    }

    void store_heads(const fused_side& side, const head_target& target, std::int64_t first, std::int64_t count) const {
        const std::int64_t dim = side.in.head_dim, stride = held_head(dim);
        ropewalk::detail::with_cache_element(target.type, [&]<class E>(std::type_identity<E>) {
            E* to = static_cast<E*>(target.data) + first * target.step;
            for (std::int64_t head = 0; head < count; ++head, to += target.step)
                store_head<A>(target, first + head, held_ + head * stride, dim, to);
        });
    }

    const fused_params& params_;
    float *pair_order_ = nullptr, *rows_ = nullptr, *held_ = nullptr;
    const float* weights_[3] = {};
    const float *typed_row_ = nullptr, *float_row_ = nullptr;
    head_loop_choice loops_;
};

template <class A>
void run_fused(const fused_params& params, std::int64_t begin, std::int64_t end, float* scratch) {
    fused_range<A>(params, scratch).run(begin, end);
}

}  // namespace ropewalk::cpu::detail
