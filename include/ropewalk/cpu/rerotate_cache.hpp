// Re-encoding of cached keys in place on the CPU, in any type of caches.
#pragma once

#include <array>

#include "ropewalk/cpu/fused_heads.hpp"
#include "ropewalk/cpu/kernel.hpp"
#include "ropewalk/cpu/rerotate_cache_plan.hpp"
#include "ropewalk/cpu/token_heads.hpp"

namespace ropewalk::cpu {

namespace detail {

/// Widens the elements of a head that has a scale. A is the instruction set of the file.
template <class A>
void widen_scaled(const std::int8_t* from, std::int64_t count, float scale, float* to) {
    for (std::int64_t i = 0; i < count; ++i) to[i] = static_cast<float>(from[i]) * scale;
}
template <class A, class F8>
void widen_scaled(const F8* from, std::int64_t count, float scale, float* to) {
    static constexpr auto values = [] {
        std::array<float, 256> of_codes{};
        for (std::size_t code = 0; code < of_codes.size(); ++code) {
            F8 x;
            x.bits = static_cast<std::uint8_t>(code);
            of_codes[code] = static_cast<float>(x);
        }
        return of_codes;
    }();
    for (std::int64_t i = 0; i < count; ++i) to[i] = values[from[i].bits] * scale;
}

/// The keys of one token in a cache.
template <class A>
struct token_of_cache {
    const rerotate_cache_plan& plan;
    const rotate_kernel& kernel;
    const head_loop_choice loops;
    cache_slot slot;
    float* floats;  ///< scratch of the heads

    [[nodiscard]] std::byte* head(std::int64_t index) const {
        const cache_tensor& keys = plan.keys;
        return static_cast<std::byte*>(keys.data) +
               (slot.page * keys.stride_page + slot.entry * keys.stride_token + index * keys.stride_head) *
                   size_of(keys.type);
    }
    /// Those of the heads, in an i8 cache.
    [[nodiscard]] float* scales() const {
        const cache_tensor& keys = plan.keys;
        if (keys.type != cache_type::i8) return nullptr;
        return keys.scales + slot.page * keys.scale_stride_page + slot.entry * keys.scale_stride_token;
    }

    void rotate(const float* row) const {
        switch (plan.keys.type) {
            case cache_type::f8e4m3:
                return convert_and_rotate<f8e4m3>(row);
            case cache_type::f8e5m2:
                return convert_and_rotate<f8e5m2>(row);
            case cache_type::i8:
                return convert_and_rotate<std::int8_t>(row);
            default:
                break;
        }
        const rotate_params& params = plan.rotation.params;
        const std::int64_t stride = plan.keys.stride_head * kernel.element_bytes;
        std::byte* const first = head(0) + params.rotary_offset * kernel.element_bytes;
        loops.rotate(params.pairs, row, {first, first, plan.keys.heads, stride, stride});
    }

    /// The scale of an int8 head covers all of its elements; f8 leaves those outside the rotary part as they are.
    template <class E>
    void convert_and_rotate(const float* row) const {
        constexpr bool is_scaled_by_head = std::is_same_v<E, std::int8_t>;
        const rotate_params& params = plan.rotation.params;
        const cache_tensor& keys = plan.keys;
        const std::int64_t first = is_scaled_by_head ? 0 : params.rotary_offset;
        const std::int64_t count = is_scaled_by_head ? keys.head_dim : 2 * params.pairs;
        const std::int64_t block = std::max<std::int64_t>(block_elements / count, 1),
                           bytes = count * static_cast<std::int64_t>(sizeof(float));
        const head_target target{head(0), keys.stride_head, keys.type, keys.scale, scales(), keys.scale_stride_head};
        const auto elements = [&](std::int64_t i) { return reinterpret_cast<E*>(head(i)) + first; };
        for (std::int64_t begin = 0; begin < keys.heads; begin += block) {
            const std::int64_t end = std::min(begin + block, keys.heads);
            for (std::int64_t i = begin; i < end; ++i) {
                const float scale = is_scaled_by_head ? target.scales[i * target.scale_step] : keys.scale;
                widen_scaled<A>(elements(i), count, scale, floats + (i - begin) * count);
            }
            auto* const rotary = reinterpret_cast<std::byte*>(floats + params.rotary_offset - first);
            loops.rotate(params.pairs, row, {rotary, rotary, end - begin, bytes, bytes});
            for (std::int64_t i = begin; i < end; ++i)
                store_head<A>(target, i, floats + (i - begin) * count, count, elements(i));
        }
    }
};

/// The function of a kernel set. Token by token: the keys of a page lie where the cache puts them.
template <class A>
void rerotate_cache_tokens(const rotate_kernel& kernel, const rerotate_cache_plan& plan, std::int64_t begin,
                           std::int64_t end, float* scratch) {
    const rotate_params& params = plan.rotation.params;
    float* const rows = scratch + first_row(params);
    token_of_cache<A> token{plan, kernel, head_loop_choice(kernel, params), {}, scratch + cpu::scratch_floats(params)};
    bool is_made = false;
    for (std::int64_t i = begin; i < end; ++i) {
        token.slot = plan.slots[static_cast<std::size_t>(i)];
        if (token.slot.page < 0) continue;
        if (!is_made || !params.loop.shared_row)
            kernel.make_rows(kernel, params, i / params.tokens(), i % params.tokens(), rows, scratch);
        is_made = true;
        token.rotate(rows + key_row(params));
    }
}

}  // namespace detail

/// Re-encodes cached keys in place: those of token t lie in its slot of the cache, were encoded by `source` at
/// source_positions[t], and become those of `target` at target_positions[t]. Source and target may be one encoding.
/// Every element is read and written at most once; tokens without a slot are skipped. Arithmetic is float32 with the
/// exact difference of both phases, as in rerotate().
///
/// Elements outside the rotary part stay as they are. In an i8 cache, where each head gets a new scale, they are
/// rounded again: each element of a head, rotated or not, is within m / 254 of its exact value, m the largest magnitude
/// of the new head. In an f8 cache the scale stays, and results beyond the largest number saturate.
///
/// Throws ropewalk::error, with nothing written, where shapes, strides, positions or slots do not fit, where a slot
/// lies outside the cache, and where two tokens have the same slot.
template <Layout L, class A = native_arch>
void rerotate_cache(const cache_tensor& keys, const cached_tokens& at, const Encoding& source,
                    const positions& source_positions, const Encoding& target, const positions& target_positions,
                    const threads& threads = {}) {
    const rerotate_cache_plan plan = make_rerotate_cache_plan({.layout = kind_of<L>,
                                                               .keys = keys,
                                                               .at = at,
                                                               .source = &source,
                                                               .source_positions = source_positions,
                                                               .target = &target,
                                                               .target_positions = target_positions});
    const auto run = [&](const rotate_kernel& kernel) {
        execute(plan, kernel, detail::rerotate_cache_tokens<A>, threads);
    };
    if (keys.type == cache_type::f16) return run(kernel_of<f16, L, A>);
    if (keys.type == cache_type::bf16) return run(kernel_of<bf16, L, A>);
    run(kernel_of<float, L, A>);
}

}  // namespace ropewalk::cpu
