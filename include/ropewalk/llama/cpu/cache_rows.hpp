// Conversion between rows of floats and the pages of a key-value cache.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "ropewalk/llama/cpu/kernels.hpp"
#include "ropewalk/llama/cpu/simd.hpp"
#include "ropewalk/llama/cpu/threads.hpp"

namespace ropewalk::llama::cpu::detail {

/// Prefetches a line for reading. RW_PREFETCH_L2 prefetches for writing, which takes the line from other threads.
RW_INLINE void prefetch_for_reading(const void* address) { __builtin_prefetch(address, 0, 2); }

/// Calls f with a value of the element type of a cache.
template <class F>
RW_INLINE void with_cache_element(cache_type type, const F& f) {
    switch (type) {
        case cache_type::f32:
            return f(float{});
        case cache_type::f16:
            return f(f16{});
        case cache_type::bf16:
            return f(bf16{});
        default:
            return f(std::int8_t{});
    }
}

/// Keys or values of one head of one sequence in their pages.
struct cached_head {
    page_layout layout;
    std::byte* const* pages = nullptr;
    std::int64_t head = 0;
    bool keys = true;

    [[nodiscard]] RW_INLINE std::int64_t row_of(std::int64_t token) const {
        return head * layout.page_tokens + token % layout.page_tokens;
    }
    [[nodiscard]] RW_INLINE std::byte* bytes(std::int64_t token) const {
        std::byte* const rows = pages[token / layout.page_tokens] + (keys ? layout.k : layout.v);
        return rows + row_of(token) * layout.head_dim * size_of(layout.type);
    }
    template <class T>
    [[nodiscard]] RW_INLINE T* row(std::int64_t token) const {
        return reinterpret_cast<T*>(bytes(token));
    }
    /// Scale of a token in an int8 cache.
    [[nodiscard]] RW_INLINE float* scale(std::int64_t token) const {
        std::byte* const scales = pages[token / layout.page_tokens] + (keys ? layout.k_scales : layout.v_scales);
        return reinterpret_cast<float*>(scales) + row_of(token);
    }
    /// True if one page holds `count` tokens from `token` on.
    [[nodiscard]] RW_INLINE bool in_one_page(std::int64_t token, std::int64_t count) const {
        return layout.page_tokens - token % layout.page_tokens >= count;
    }
};

template <class A, class T>
RW_INLINE void narrow_row(const float* from, std::int64_t width, T* to) {
    constexpr std::int64_t lanes = lane_count<A>;
    std::int64_t i = 0;
    for (; i + lanes <= width; i += lanes) store_elements<A>(to + i, floats<A>::load_unaligned(from + i));
    for (; i < width; ++i) to[i] = T(from[i]);
}

/// Stores a head as int8 and returns its scale. The product is rounded before it is rounded to an integer, as on a GPU.
template <class A>
RW_INLINE float narrow_row_int8(const float* from, std::int64_t width, std::int8_t* to) {
    std::uint32_t largest = 0;
    for (std::int64_t i = 0; i < width; ++i) {
        const std::uint32_t magnitude = ropewalk::detail::bit_cast<std::uint32_t>(from[i]) & 0x7fffffffU;
        largest = magnitude > largest ? magnitude : largest;
    }
    const int8_scale scale = int8_scale::of(largest);
    if (scale.factor == 0) {
        std::memset(to, 0, static_cast<std::size_t>(width));
        return scale.stored;
    }
    for (std::int64_t i = 0; i < width; ++i)
        to[i] = static_cast<std::int8_t>(static_cast<int>(__builtin_rintf(from[i] * scale.factor)));
    return scale.stored;
}

/// Widens one token of a head to floats.
template <class A>
RW_INLINE void load_row(const cached_head& from, std::int64_t token, float* to) {
    with_cache_element(
        from.layout.type, [&]<class T>(T /*type*/) __attribute__((always_inline)) {
            const float scale = std::is_same_v<T, std::int8_t> ? *from.scale(token) : 1.0F;
            widen_row<A>(from.template row<const T>(token), scale, from.layout.head_dim, to);
        });
}

/// Narrows one token of a head into the cache.
template <class A>
RW_INLINE void store_row(const float* from, const cached_head& to, std::int64_t token) {
    with_cache_element(
        to.layout.type, [&]<class T>(T /*type*/) __attribute__((always_inline)) {
            if constexpr (std::is_same_v<T, std::int8_t>) {
                *to.scale(token) = narrow_row_int8<A>(from, to.layout.head_dim, to.template row<T>(token));
            } else {
                narrow_row<A>(from, to.layout.head_dim, to.template row<T>(token));
            }
        });
}

/// Calls move(row of floats, head of the cache, token in the cache) for all rows.
template <class A, class Move>
void for_each_row(const cache_params& params, int threads, const Move& move) {
    const page_layout& layout = params.layout;
    const paged_rows& sequence = params.sequence;
    const std::int64_t tokens = sequence.tokens, row_floats = layout.kv_heads * layout.head_dim;
    const std::int64_t shares = tokens * row_floats * 4 / (128 * 1024);  // each pays for waking a thread
    parallel_for<A>(
        tokens,
        thread_count(shares < tokens ? shares : tokens, threads), [&](std::int64_t i) __attribute__((always_inline)) {
            cached_head head{layout, sequence.pages, 0, params.keys};
            float* row = params.rows + (sequence.first + i) * row_floats;
            for (; head.head < layout.kv_heads; ++head.head, row += layout.head_dim) move(row, head, sequence.past + i);
        });
}

template <class A>
void store_rows(const cache_params& params, int threads) {
    for_each_row<A>(
        params, threads,
        [](const float* row, const cached_head& head, std::int64_t token)
            __attribute__((always_inline)) { store_row<A>(row, head, token); });
}

template <class A>
void load_rows(const cache_params& params, int threads) {
    for_each_row<A>(
        params, threads, [](float* row, const cached_head& head, std::int64_t token) __attribute__((always_inline)) {
            load_row<A>(head, token, row);
        });
}

}  // namespace ropewalk::llama::cpu::detail
