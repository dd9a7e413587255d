// How a lane reads and writes its elements of a row, whose type is known at run time.
#pragma once

#include "ropewalk/gpu/cache_store.hpp"
#include "ropewalk/gpu/fused_body.hpp"
#include "ropewalk/llama/gpu/lanes.hpp"

namespace ropewalk::llama::gpu {

using ropewalk::gpu::cache_slot, ropewalk::gpu::cache_slots, ropewalk::gpu::cache_tensor, ropewalk::gpu::kv_cache;
using ropewalk::gpu::plain_access, ropewalk::gpu::slot_reader;

/// Elements of a lane, as floats.
using lane_values = float[lane_elements];

namespace detail {

/// Four bytes as floats, the first lowest.
RW_HD RW_INLINE void widen_bytes(f8e4m3 /*type*/, std::uint32_t word, float* x) {
#if defined(RW_GPU_CODE) && RW_GPU_CODE >= 890
    const auto low = static_cast<std::uint16_t>(word), high = static_cast<std::uint16_t>(word >> 16);
    std::uint32_t halves[2];
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves[0]) : "h"(low));
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves[1]) : "h"(high));
    ropewalk::gpu::detail::widen(f16{}, halves[0], x[0], x[1]);
    ropewalk::gpu::detail::widen(f16{}, halves[1], x[2], x[3]);
#else
    RW_UNROLL
    for (int i = 0; i < 4; ++i) x[i] = ropewalk::detail::e4m3_to_float(static_cast<std::uint8_t>(word >> 8 * i));
#endif
}
RW_HD RW_INLINE void widen_bytes(std::int8_t /*type*/, std::uint32_t word, float* x) {
    RW_UNROLL
    for (int i = 0; i < 4; ++i) x[i] = static_cast<float>(static_cast<std::int8_t>(word >> 8 * i & 0xffU));
}

/// One element, of any type that a cache has.
template <CacheElement E, class Memory>
RW_HD RW_INLINE float load_one(const E* from) {
    if constexpr (Element<E>) {
        float x[1];
        ropewalk::gpu::detail::load_elements<E, Memory>(from, x);
        return x[0];
    } else {
        float x[4];
        widen_bytes(E{}, Memory::template load<1>(from).value[0], x);
        return x[0];
    }
}

}  // namespace detail

/// A lane's elements of a row of which `left` remain, zeros behind its end. Wide: at once, which wants addresses that
/// are multiples of 16 bytes (of 8 where elements are bytes) and rows of a multiple of lane_elements; else one by one.
template <bool Wide, class Memory, CacheElement E>
RW_HD RW_INLINE void load_lane(const E* from, std::int64_t left, lane_values& x) {
    if constexpr (!Wide) {
        RW_UNROLL
        for (int i = 0; i < lane_elements; ++i) x[i] = i < left ? detail::load_one<E, Memory>(from + i) : 0;
    } else if (left <= 0) {
        RW_UNROLL
        for (int i = 0; i < lane_elements; ++i) x[i] = 0;
    } else if constexpr (Element<E>) {
        ropewalk::gpu::detail::load_elements<E, Memory>(from, x);
    } else {
        const auto bytes = Memory::template load<lane_elements>(from);
        detail::widen_bytes(E{}, bytes.value[0], x);
        detail::widen_bytes(E{}, bytes.value[1], x + 4);
    }
}

/// The same from element number `at` of memory whose type is known at run time.
template <bool Wide, class Memory>
RW_HD RW_INLINE void load_lane(element_type type, const void* data, std::int64_t at, std::int64_t left,
                               lane_values& x) {
    if (type == element_type::f32) return load_lane<Wide, Memory>(static_cast<const float*>(data) + at, left, x);
    if (type == element_type::f16) return load_lane<Wide, Memory>(static_cast<const f16*>(data) + at, left, x);
    load_lane<Wide, Memory>(static_cast<const bf16*>(data) + at, left, x);
}
template <bool Wide, class Memory>
RW_HD RW_INLINE void load_lane(cache_type type, const void* data, std::int64_t at, std::int64_t left, lane_values& x) {
    switch (type) {
        case cache_type::f32:
            return load_lane<Wide, Memory>(static_cast<const float*>(data) + at, left, x);
        case cache_type::f16:
            return load_lane<Wide, Memory>(static_cast<const f16*>(data) + at, left, x);
        case cache_type::bf16:
            return load_lane<Wide, Memory>(static_cast<const bf16*>(data) + at, left, x);
        case cache_type::f8e4m3:
            return load_lane<Wide, Memory>(static_cast<const f8e4m3*>(data) + at, left, x);
        default:
            return load_lane<Wide, Memory>(static_cast<const std::int8_t*>(data) + at, left, x);
    }
}

/// Rounds a lane's elements and writes those of which `left` remain.
template <bool Wide, class Memory, Element E>
RW_HD RW_INLINE void store_lane(E* to, std::int64_t left, const lane_values& x) {
    if constexpr (Wide) {
        if (left > 0) ropewalk::gpu::detail::store_elements<E, Memory>(to, x);
    } else {
        RW_UNROLL
        for (int i = 0; i < lane_elements; ++i) {
            if (i < left) ropewalk::gpu::detail::store_elements<E, Memory>(to + i, {x[i]});
        }
    }
}
template <bool Wide, class Memory>
RW_HD RW_INLINE void store_lane(element_type type, void* data, std::int64_t at, std::int64_t left,
                                const lane_values& x) {
    if (type == element_type::f32) return store_lane<Wide, Memory>(static_cast<float*>(data) + at, left, x);
    if (type == element_type::f16) return store_lane<Wide, Memory>(static_cast<f16*>(data) + at, left, x);
    store_lane<Wide, Memory>(static_cast<bf16*>(data) + at, left, x);
}

}  // namespace ropewalk::llama::gpu
