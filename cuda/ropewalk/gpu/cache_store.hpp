// Lookup of the cache slot of a token, and stores in the element type of the cache.
#pragma once

#include "ropewalk/gpu/access.hpp"
#include "ropewalk/gpu/cache.hpp"
#include "ropewalk/gpu/divide.hpp"
#include "ropewalk/gpu/group.hpp"
#include "ropewalk/rotation/position_reader.hpp"

namespace ropewalk::gpu {

/// Plain data that tells a kernel the cache slot of each token.
struct slot_reader : cache_slots {
    position_reader entry_reader{};  ///< of `entries`
    std::int64_t pages = 0, page_size = 1;
};

/// A page and the entry in that page. Page −1: no slot.
struct cache_slot {
    std::int64_t page = -1;
    std::int64_t entry = 0;
};

/// The keys or the values of a cache as a kernel writes them. Strides are in elements.
struct cache_sink {
    void* data = nullptr;  ///< null: absent
    cache_type type = cache_type::f32;
    std::int64_t stride_page = 0, stride_token = 0, stride_head = 0;
    float scale = 1, inverse_scale = 1;
    float* scales = nullptr;
    std::int64_t scale_stride_page = 0, scale_stride_token = 0, scale_stride_head = 0;
};

namespace detail {

/// Splits number n, of a slot or of an entry of a sequence, into a page and the entry in that page.
RW_HD RW_INLINE cache_slot split_by_page(std::int64_t n, std::int64_t page_size) {
    if (n < 0) return {};
    const quotient parts = divide(n, page_size);
    return {parts.whole, parts.rest};
}

/// The slot of entry `entry` of a sequence, counted over all of its pages. Its page may lie outside the cache.
RW_HD RW_INLINE cache_slot slot_of_entry(const slot_reader& slots, std::int64_t sequence, std::int64_t entry) {
    if (entry < 0) return {};
    if (slots.source == cache_slots::kind::by_sequence) return {entry < slots.page_size ? sequence : -1, entry};
    cache_slot slot = split_by_page(entry, slots.page_size);
    if (sequence >= slots.sequences || slot.page >= slots.max_pages) return {};
    slot.page = slots.table[sequence * slots.stride_sequence + slot.page];
    return slot;
}

}  // namespace detail

/// The slot of a token, or none where it lies outside the cache. Never reads outside the arguments, even where they
/// hold invalid slots.
RW_HD RW_INLINE cache_slot slot_of_token(const slot_reader& slots, std::int64_t row, std::int64_t token,
                                         std::int64_t tokens) {
    cache_slot slot;
    const std::int64_t index = row * tokens + token;
    if (slots.source == cache_slots::kind::mapping32) {
        slot = detail::split_by_page(static_cast<const std::int32_t*>(slots.mapping)[index], slots.page_size);
    } else if (slots.source == cache_slots::kind::mapping64) {
        slot = detail::split_by_page(static_cast<const std::int64_t*>(slots.mapping)[index], slots.page_size);
    } else {
        const std::int64_t sequence = slots.entry_reader.ragged() ? slots.entry_reader.sequence_of(token) : row;
        slot = detail::slot_of_entry(slots, sequence, slots.entry_reader.index(row, token));
    }
    return slot.page >= 0 && slot.page < slots.pages ? slot : cache_slot{};
}

/// x / divisor rounded once, from the rounded reciprocal of the divisor: a quotient and its correction (Markstein). The
/// divisor must be within 2^±64. A quotient beyond 2^10, where the correction might overflow, may be one unit off.
RW_HD RW_INLINE float quotient_of(float x, float divisor, float reciprocal) {
    const float estimate = x * reciprocal;
    const float exact = __builtin_fmaf(__builtin_fmaf(-estimate, divisor, x), reciprocal, estimate);
    // Zeros keep their sign.
    return magnitude_bits(estimate) - 1U < 0x44800000U - 1U ? exact : estimate;
}

namespace detail {

/// x · factor, rounded. Prevents nvcc from fusing the product with an addition, which would break ties differently from
/// the CPU.
RW_HD RW_INLINE float rounded_product(float x, float factor) {
#if defined(RW_GPU_CODE)
    return __fmul_rn(x, factor);
#else
    return x * factor;
#endif
}

/// The nearest integer of x, |x| ≤ 127, ties to even, as the byte of an int8. Adding 1.5 · 2^23 moves it to the low
/// bits.
RW_HD RW_INLINE std::uint32_t int8_bits(float x) {
    return ropewalk::detail::bit_cast<std::uint32_t>(x + 0x1.8p23F) & 0xffU;
}

/// Four e4m3 bytes, the first one lowest.
RW_HD RW_INLINE std::uint32_t e4m3_bits(float a, float b, float c, float d) {
#if defined(RW_GPU_CODE) && RW_GPU_CODE >= 890
    std::uint16_t low, high;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(low) : "f"(b), "f"(a));
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(high) : "f"(d), "f"(c));
    return std::uint32_t{low} | std::uint32_t{high} << 16;
#else
    const auto bits = [](float x) { return static_cast<std::uint32_t>(ropewalk::detail::float_to_e4m3(x)); };
    return bits(a) | bits(b) << 8 | bits(c) << 16 | bits(d) << 24;
#endif
}

/// Stores V elements in the element type of a cache. `factor` is int8_scale::factor.
template <CacheElement E, class Memory, int V>
RW_HD RW_INLINE void store_as(E* to, const cache_sink& sink, float factor, const float (&x)[V]) {
    if constexpr (Element<E>) {
        store_elements<E, Memory>(to, x);
    } else {
        constexpr int count = (V + 3) / 4;
        std::uint32_t words[count] = {};
        if constexpr (std::same_as<E, std::int8_t>) {
            RW_UNROLL
            for (int i = 0; i < V; ++i) words[i / 4] |= int8_bits(rounded_product(x[i], factor)) << (8 * (i % 4));
        } else {
            float scaled[4 * count] = {};
            RW_UNROLL
            for (int i = 0; i < V; ++i) scaled[i] = quotient_of(x[i], sink.scale, sink.inverse_scale);
            RW_UNROLL
            for (int i = 0; i < count; ++i)
                words[i] = e4m3_bits(scaled[4 * i], scaled[4 * i + 1], scaled[4 * i + 2], scaled[4 * i + 3]);
        }
        vec_bits<V> bits;
        RW_UNROLL
        for (int i = 0; i < vec_bits<V>::words; ++i) bits.value[i] = static_cast<typename vec_bits<V>::word>(words[i]);
        Memory::template store<V>(to, bits);
    }
}

/// Calls f(std::type_identity<E>) with the element type of a cache.
template <class F>
RW_HD RW_INLINE void with_cache_element(cache_type type, const F& f) {
    if (type == cache_type::f32) return f(std::type_identity<float>{});
    if (type == cache_type::f16) return f(std::type_identity<f16>{});
    if (type == cache_type::bf16) return f(std::type_identity<bf16>{});
    if (type == cache_type::i8) return f(std::type_identity<std::int8_t>{});
    f(std::type_identity<f8e4m3>{});
}

}  // namespace detail

}  // namespace ropewalk::gpu
