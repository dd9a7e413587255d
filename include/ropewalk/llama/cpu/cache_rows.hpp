// Rows of floats into the pages of a key-value cache, and back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "ropewalk/llama/cpu/kernels.hpp"
#include "ropewalk/llama/cpu/simd.hpp"
#include "ropewalk/llama/cpu/threads.hpp"

namespace ropewalk::llama::cpu::detail {

/// Asks the second cache for a line that is read soon. RW_PREFETCH_L2 asks to write, which takes it from other threads.
RW_INLINE void ask_for_line(const void* address) { __builtin_prefetch(address, 0, 2); }

/// Keys or values of one head of one sequence, as its pages keep them.
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
    /// Of an int8 cache.
    [[nodiscard]] RW_INLINE float* scale(std::int64_t token) const {
        std::byte* const scales = pages[token / layout.page_tokens] + (keys ? layout.k_scales : layout.v_scales);
        return reinterpret_cast<float*>(scales) + row_of(token);
    }
    /// Tokens from here to the end of the page, `most` at the utmost.
    [[nodiscard]] RW_INLINE std::int64_t run(std::int64_t token, std::int64_t most) const {
        const std::int64_t left = layout.page_tokens - token % layout.page_tokens;
        return left < most ? left : most;
    }
};

/// lane_count<A> elements of a cache as floats, an int8 without its scale.
template <class A, class T>
RW_INLINE floats<A> load_cached(const T* from) {
    if constexpr (std::is_same_v<T, std::int8_t>) {
        return ropewalk::cpu::detail::load_signed_bytes<A>(from);
    } else {
        return load_elements<A>(from);
    }
}

template <class A, class T>
RW_INLINE void widen_row(const T* from, float factor, std::int64_t width, float* to) {
    constexpr std::int64_t lanes = lane_count<A>;
    constexpr bool scaled = std::is_same_v<T, std::int8_t>;
    const floats<A> factors(factor);
    std::int64_t i = 0;
    for (; i + lanes <= width; i += lanes) {
        const floats<A> value = load_cached<A>(from + i);
        (scaled ? value * factors : value).store_unaligned(to + i);
    }
    for (; i < width; ++i) to[i] = scaled ? static_cast<float>(from[i]) * factor : static_cast<float>(from[i]);
}

template <class A, class T>
RW_INLINE void narrow_row(const float* from, std::int64_t width, T* to) {
    constexpr std::int64_t lanes = lane_count<A>;
    std::int64_t i = 0;
    for (; i + lanes <= width; i += lanes) store_elements<A>(to + i, floats<A>::load_unaligned(from + i));
    for (; i < width; ++i) to[i] = T(from[i]);
}

/// A head as int8, and its scale. The product is rounded before it is rounded to an integer, as a GPU's cache has it.
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

/// `count` consecutive tokens of a head, all in one page, as floats: row i at to + i · stride.
template <class A>
RW_INLINE void widen_run(const cached_head& from, std::int64_t token, std::int64_t count, float* to,
                         std::int64_t stride) {
    const std::int64_t width = from.layout.head_dim;
    const auto rows = [&]<class T>(const T* row) __attribute__((always_inline)) {
        const float* const scales = std::is_same_v<T, std::int8_t> ? from.scale(token) : nullptr;
        for (std::int64_t i = 0; i < count; ++i)
            widen_row<A>(row + i * width, scales != nullptr ? scales[i] : 1.0F, width, to + i * stride);
    };
    switch (from.layout.type) {
        case cache_type::f32:
            return rows(from.template row<const float>(token));
        case cache_type::f16:
            return rows(from.template row<const f16>(token));
        case cache_type::bf16:
            return rows(from.template row<const bf16>(token));
        default:
            return rows(from.template row<const std::int8_t>(token));
    }
}

/// One head of one token into the cache.
template <class A>
RW_INLINE void store_row(const float* from, const cached_head& to, std::int64_t token) {
    const std::int64_t width = to.layout.head_dim;
    switch (to.layout.type) {
        case cache_type::f32:
            return narrow_row<A>(from, width, to.template row<float>(token));
        case cache_type::f16:
            return narrow_row<A>(from, width, to.template row<f16>(token));
        case cache_type::bf16:
            return narrow_row<A>(from, width, to.template row<bf16>(token));
        default:
            *to.scale(token) = narrow_row_int8<A>(from, width, to.template row<std::int8_t>(token));
    }
}

/// Calls move(row of floats, head of the cache, its token) for all of them.
template <class A, class Move>
void for_each_row(const cache_params& job, int threads, const Move& move) {
    const std::int64_t heads = job.layout.kv_heads, width = job.layout.head_dim, tokens = job.sequence.tokens;
    const auto one = [&](std::int64_t i) __attribute__((always_inline)) {
        cached_head place{job.layout, job.sequence.pages, 0, job.keys};
        for (place.head = 0; place.head < heads; ++place.head)
            move(job.rows + ((job.sequence.first + i) * heads + place.head) * width, place, job.sequence.past + i);
    };
    // Waking a thread costs more than moving 128 KiB.
    const std::int64_t paying = tokens * heads * width * 4 / (128 * 1024);
    const int team = thread_count<A>(paying < tokens ? paying : tokens, threads);
    if (team == 1) {
        for (std::int64_t i = 0; i < tokens; ++i) one(i);
        return;
    }
#if defined(RW_OPENMP)
#pragma omp parallel for num_threads(team) schedule(static)
    for (std::int64_t i = 0; i < tokens; ++i) one(i);
#endif
}

template <class A>
void store_rows(const cache_params& job, int threads) {
    for_each_row<A>(
        job, threads,
        [](const float* row, const cached_head& place, std::int64_t token)
            __attribute__((always_inline)) { store_row<A>(row, place, token); });
}

template <class A>
void load_rows(const cache_params& job, int threads) {
    for_each_row<A>(
        job, threads, [](float* row, const cached_head& place, std::int64_t token) __attribute__((always_inline)) {
            widen_run<A>(place, token, 1, row, 0);
        });
}

}  // namespace ropewalk::llama::cpu::detail
