// How a thread finds the slot of a token in a cache, and writes elements there in the type of the cache.
#pragma once

#include "ropewalk/gpu/access.hpp"
#include "ropewalk/gpu/angles.hpp"
#include "ropewalk/gpu/cache.hpp"
#include "ropewalk/gpu/divide.hpp"
#include "ropewalk/gpu/group.hpp"

namespace ropewalk::gpu {

/// The slots of a call as a kernel finds them.
struct slot_source {
    cache_slots::kind how = cache_slots::kind::none;
    position_reader entries;
    const std::int32_t* table = nullptr;
    std::int64_t sequences = 0, max_pages = 0, stride_sequence = 0;
    const void* mapping = nullptr;
    std::int64_t pages = 0, page_size = 1;
};

/// A place in a cache; page −1: none.
struct cache_place {
    std::int64_t page = -1;
    std::int64_t token = 0;
};

/// Keys or values of a cache as a kernel writes them.
struct cache_sink {
    void* data = nullptr;  ///< null: none
    cache_type type = cache_type::f32;
    std::int64_t page = 0, token = 0, head = 0;  ///< elements
    float scale = 1, inverse = 1;
    float* scales = nullptr;
    std::int64_t scale_page = 0, scale_token = 0, scale_head = 0;
};

namespace detail {

/// Place number n, counted through pages of page_size.
RW_HD RW_INLINE cache_place place_number(std::int64_t n, std::int64_t page_size) {
    if (n < 0) return {};
    const quotient parts = divide(n, page_size);
    return {parts.whole, parts.rest};
}

/// The place of an entry of a sequence, whether or not there is such a page.
RW_HD RW_INLINE cache_place place_of_entry(const slot_source& slots, std::int64_t sequence, std::int64_t entry) {
    if (entry < 0) return {};
    if (slots.how == cache_slots::kind::by_sequence) return {entry < slots.page_size ? sequence : -1, entry};
    cache_place place = place_number(entry, slots.page_size);
    if (sequence >= slots.sequences || place.page >= slots.max_pages) return {};
    place.page = slots.table[sequence * slots.stride_sequence + place.page];
    return place;
}

}  // namespace detail

/// The place of a token, none where it lies outside the cache. Whatever the memory holds, none is read or written
/// beside what the call was given.
RW_HD RW_INLINE cache_place place_at(const slot_source& slots, std::int64_t row, std::int64_t token,
                                     std::int64_t tokens) {
    cache_place place;
    const std::int64_t at = row * tokens + token;
    if (slots.how == cache_slots::kind::mapping32) {
        place = detail::place_number(static_cast<const std::int32_t*>(slots.mapping)[at], slots.page_size);
    } else if (slots.how == cache_slots::kind::mapping64) {
        place = detail::place_number(static_cast<const std::int64_t*>(slots.mapping)[at], slots.page_size);
    } else {
        const std::int64_t sequence = slots.entries.ragged() ? slots.entries.sequence_of(token) : row;
        place = detail::place_of_entry(slots, sequence, slots.entries.index(row, token));
    }
    return place.page >= 0 && place.page < slots.pages ? place : cache_place{};
}

/// x / divisor rounded once, from the divisor's reciprocal rounded once: a quotient and its correction (Markstein).
/// For a divisor within 2^±64. A quotient beyond 2^10, where the correction might overflow, may be one unit off.
RW_HD RW_INLINE float quotient_of(float x, float divisor, float reciprocal) {
    const float near = x * reciprocal;
    const float exact = __builtin_fmaf(__builtin_fmaf(-near, divisor, x), reciprocal, near);
    // Zeros keep their sign.
    return magnitude_bits(near) - 1U < 0x44800000U - 1U ? exact : near;
}

namespace detail {

/// x · factor, rounded before whatever is done with it: nvcc would fuse it with an addition, whose ties then go
/// elsewhere than the CPU's.
RW_HD RW_INLINE float rounded_product(float x, float factor) {
#if defined(RW_GPU_CODE)
    return __fmul_rn(x, factor);
#else
    return x * factor;
#endif
}

/// The nearest integer of |x| ≤ 127, ties to even, as the byte of an int8. Adding 1.5 · 2^23 leaves it in the low bits.
RW_HD RW_INLINE std::uint32_t int8_bits(float x) {
    return ropewalk::detail::bit_cast<std::uint32_t>(x + 0x1.8p23F) & 0xffU;
}

/// Four bytes of e4m3, the first lowest.
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

/// Writes V elements of a 16- or 32-bit type in accesses of at most 16 bytes.
template <Element E, class Memory, int V>
RW_HD RW_INLINE void store_elements(E* to, const float (&x)[V]) {
    constexpr int bytes = V * static_cast<int>(sizeof(E)) < 16 ? V * static_cast<int>(sizeof(E)) : 16;
    using part = line<E, bytes>;
    RW_UNROLL
    for (int done = 0; done < V; done += part::count) {
        part values;
        RW_UNROLL
        for (int i = 0; i < part::count; ++i) values.value[i] = x[done + i];
        Memory::template store<bytes>(to + done, values.narrow());
    }
}

/// Writes V bytes, the lowest of each number of word(i).
template <class Memory, int V>
RW_HD RW_INLINE void store_bytes(void* to, const std::uint32_t (&words)[(V + 3) / 4]) {
    packet<V> bytes;
    RW_UNROLL
    for (int i = 0; i < packet<V>::words; ++i) bytes.value[i] = static_cast<typename packet<V>::word>(words[i]);
    Memory::template store<V>(to, bytes);
}

}  // namespace detail

/// Writes V elements from number `element` of a cache on. `factor` is that of int8_scale.
template <class Memory, int V>
RW_HD RW_INLINE void store_cached(const cache_sink& sink, std::int64_t element, float factor, const float (&x)[V]) {
    if (sink.type == cache_type::f32)
        return detail::store_elements<float, Memory>(static_cast<float*>(sink.data) + element, x);
    if (sink.type == cache_type::f16)
        return detail::store_elements<f16, Memory>(static_cast<f16*>(sink.data) + element, x);
    if (sink.type == cache_type::bf16)
        return detail::store_elements<bf16, Memory>(static_cast<bf16*>(sink.data) + element, x);
    constexpr int count = (V + 3) / 4;
    std::uint32_t words[count] = {};
    if (sink.type == cache_type::i8) {
        RW_UNROLL
        for (int i = 0; i < V; ++i)
            words[i / 4] |= detail::int8_bits(detail::rounded_product(x[i], factor)) << (8 * (i % 4));
    } else {
        float scaled[4 * count] = {};
        RW_UNROLL
        for (int i = 0; i < V; ++i) scaled[i] = quotient_of(x[i], sink.scale, sink.inverse);
        RW_UNROLL
        for (int i = 0; i < count; ++i)
            words[i] = detail::e4m3_bits(scaled[4 * i], scaled[4 * i + 1], scaled[4 * i + 2], scaled[4 * i + 3]);
    }
    detail::store_bytes<Memory, V>(static_cast<std::uint8_t*>(sink.data) + element, words);
}

}  // namespace ropewalk::gpu
