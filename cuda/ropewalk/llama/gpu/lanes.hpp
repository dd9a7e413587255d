// Lanes of a warp: how they combine values, and how each loads and stores its elements of a row.
#pragma once

#include "ropewalk/gpu/cache_store.hpp"
#include "ropewalk/gpu/fused_body.hpp"
#include "ropewalk/gpu/group.hpp"

namespace ropewalk::llama::gpu {

using ropewalk::gpu::add, ropewalk::gpu::sum_of_neighbours, ropewalk::gpu::warp_lanes;

namespace detail {
using ropewalk::detail::divide, ropewalk::gpu::detail::load_elements, ropewalk::gpu::detail::store_elements,
    ropewalk::gpu::detail::widen_bytes;
}  // namespace detail

/// Elements of a row that one lane handles at once: 16 bytes of a 16-bit type.
inline constexpr int lane_elements = 8;
/// The widest head that one warp holds.
inline constexpr int widest_head = warp_lanes * lane_elements;

/// The larger of two numbers; of a number and a NaN, the number.
struct larger_number {
    RW_HD RW_INLINE float operator()(float a, float b) const { return a < b || a != a ? b : a; }
};

/// One lane of a device. combine() merges the values of lanes whose numbers differ in the bits from `first` up to
/// `last`, both powers of two: (1, 8) merges neighbours in groups of eight, (8, 32) merges the lanes at the same place
/// of four such groups. All N values of a step are exchanged before the next step, so that their latencies overlap.
struct device_lanes {
    static constexpr int width = 1;

    template <int N, class Operation>
    static RW_HD RW_INLINE void combine(float (&values)[1][N], int first, int last, const Operation& operation) {
#if defined(RW_GPU_CODE)
        for (int apart = first; apart < last; apart *= 2) {
            RW_UNROLL
            for (int i = 0; i < N; ++i)
                values[0][i] = operation(values[0][i], __shfl_xor_sync(0xffffffffU, values[0][i], apart));
        }
#else
        (void)values, (void)first, (void)last, (void)operation;
#endif
    }

    /// Orders the accesses of all lanes to memory before the call and after it.
    static RW_HD RW_INLINE void order_memory() {
#if defined(RW_GPU_CODE)
        __syncwarp();
#endif
    }
};

/// All lanes of a warp, executed in step by the host. Tests run the kernels this way.
struct host_lanes {
    static constexpr int width = warp_lanes;

    static void order_memory() {}

    template <int N, class Operation>
    static void combine(float (&values)[warp_lanes][N], int first, int last, const Operation& operation) {
        for (int apart = first; apart < last; apart *= 2) {
            for (int i = 0; i < N; ++i) {
                float before[warp_lanes];
                for (int lane = 0; lane < warp_lanes; ++lane) before[lane] = values[lane][i];
                for (int lane = 0; lane < warp_lanes; ++lane)
                    values[lane][i] = operation(before[lane], before[lane ^ apart]);
            }
        }
    }
};

/// 2^x with an error below 2^-22, and 0 where the result is subnormal.
RW_HD RW_INLINE float exp2_of(float x) {
#if defined(RW_GPU_CODE)
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
#else
    return __builtin_exp2f(x);
#endif
}

inline constexpr float log2_e = 1.44269504088896340736F;

/// The maximum of no scores. Finite, so that the difference of two maxima is a number.
inline constexpr float no_score = -0x1p126F;

/// Elements of one lane, as floats.
using lane_values = float[lane_elements];

namespace detail {

/// Loads one element of any cache type.
template <CacheElement E, class Memory>
RW_HD RW_INLINE float load_one(const E* from) {
    if constexpr (Element<E>) {
        float x[1];
        load_elements<E, Memory>(from, x);
        return x[0];
    } else {
        float x[4];
        widen_bytes(E{}, Memory::template load<1>(from).value[0], x);
        return x[0];
    }
}

}  // namespace detail

/// Loads the elements of a lane from a row with `left` remaining elements, and zeros beyond its end. Wide: in one
/// access, which requires addresses at multiples of 16 bytes (8 bytes for one-byte elements) and rows of a multiple of
/// lane_elements. Otherwise one element at a time.
template <bool Wide, class Memory, CacheElement E>
RW_HD RW_INLINE void load_lane(const E* from, std::int64_t left, lane_values& x) {
    if constexpr (!Wide) {
        RW_UNROLL
        for (int i = 0; i < lane_elements; ++i) x[i] = i < left ? detail::load_one<E, Memory>(from + i) : 0;
    } else if (left <= 0) {
        RW_UNROLL
        for (int i = 0; i < lane_elements; ++i) x[i] = 0;
    } else if constexpr (Element<E>) {
        detail::load_elements<E, Memory>(from, x);
    } else {
        const auto bytes = Memory::template load<lane_elements>(from);
        detail::widen_bytes(E{}, bytes.value[0], x);
        detail::widen_bytes(E{}, bytes.value[1], x + 4);
    }
}

/// The same from the element `start` of memory whose type is known at run time.
template <bool Wide, class Memory>
RW_HD RW_INLINE void load_lane(element_type type, const void* data, std::int64_t start, std::int64_t left,
                               lane_values& x) {
    if (type == element_type::f32) return load_lane<Wide, Memory>(static_cast<const float*>(data) + start, left, x);
    if (type == element_type::f16) return load_lane<Wide, Memory>(static_cast<const f16*>(data) + start, left, x);
    load_lane<Wide, Memory>(static_cast<const bf16*>(data) + start, left, x);
}

/// Rounds the elements of a lane and stores those that exist in a row with `left` remaining elements.
template <bool Wide, class Memory, Element E>
RW_HD RW_INLINE void store_lane(E* to, std::int64_t left, const lane_values& x) {
    if constexpr (Wide) {
        if (left > 0) detail::store_elements<E, Memory>(to, x);
    } else {
        RW_UNROLL
        for (int i = 0; i < lane_elements; ++i) {
            if (i < left) detail::store_elements<E, Memory>(to + i, {x[i]});
        }
    }
}
template <bool Wide, class Memory>
RW_HD RW_INLINE void store_lane(element_type type, void* data, std::int64_t start, std::int64_t left,
                                const lane_values& x) {
    if (type == element_type::f32) return store_lane<Wide, Memory>(static_cast<float*>(data) + start, left, x);
    if (type == element_type::f16) return store_lane<Wide, Memory>(static_cast<f16*>(data) + start, left, x);
    store_lane<Wide, Memory>(static_cast<bf16*>(data) + start, left, x);
}

}  // namespace ropewalk::llama::gpu
