// Stores in the element type of a cache.
#pragma once

#include "ropewalk/gpu/access.hpp"
#include "ropewalk/gpu/fused.hpp"
#include "ropewalk/gpu/group.hpp"
#include "ropewalk/rotation/slot_reader.hpp"

namespace ropewalk::gpu {

using ropewalk::cache_slot, ropewalk::slot_of_token, ropewalk::slot_reader;

/// A destination of the heads of one side as a kernel writes it: a cache, or an output, whose pages are batch rows and
/// whose entries are tokens. Strides are in elements.
struct cache_sink {
    void* data = nullptr;  ///< null: absent
    cache_type type = cache_type::f32;
    bool by_slot = false;   ///< a cache
    bool in_place = false;  ///< the output is the input
    std::int64_t stride_page = 0, stride_token = 0, stride_head = 0;
    float scale = 1, inverse_scale = 1;
    const float* scale_at = nullptr;  ///< replaces `scale` where it exists
    float* scales = nullptr;
    std::int64_t scale_stride_page = 0, scale_stride_token = 0, scale_stride_head = 0;
};

/// The divisor of the elements of an f8 tensor, and its rounded reciprocal.
struct f8_divisor {
    float value = 1, reciprocal = 1;

    /// Reads device memory where the divisor is there. The reciprocal has the same bits as on the host.
    static RW_HD RW_INLINE f8_divisor of(const cache_sink& sink) {
        if (sink.scale_at == nullptr) return {sink.scale, sink.inverse_scale};
        const float divisor = *sink.scale_at;
#if defined(RW_GPU_CODE)
        return {divisor, __frcp_rn(divisor)};
#else
        return {divisor, 1 / divisor};
#endif
    }
};

/// x / divisor rounded once, from the rounded reciprocal of the divisor: a quotient and its correction (Markstein). The
/// divisor must be positive, within 2^±64. A quotient beyond 2^17, where every f8 saturates, may be one unit off.
RW_HD RW_INLINE float quotient_of(float x, float divisor, float reciprocal) {
    const float estimate = x * reciprocal;
    // Of this sign, so that a quotient of -0 stays -0.
    const float excess = __builtin_fmaf(estimate, divisor, -x);
    return __builtin_fabsf(estimate) < 0x1p17F ? __builtin_fmaf(-excess, reciprocal, estimate) : estimate;
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

/// Four bytes of an f8 type, the first one lowest.
template <class F8>
RW_HD RW_INLINE std::uint32_t f8_bits(float a, float b, float c, float d) {
#if defined(RW_GPU_CODE) && RW_GPU_CODE >= 890
    std::uint16_t low, high;
    if constexpr (std::same_as<F8, f8e4m3>) {
        asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(low) : "f"(b), "f"(a));
        asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(high) : "f"(d), "f"(c));
    } else {
        asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(low) : "f"(b), "f"(a));
        asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(high) : "f"(d), "f"(c));
    }
    return std::uint32_t{low} | std::uint32_t{high} << 16;
#else
    const auto bits = [](float x) { return static_cast<std::uint32_t>(F8(x).bits); };
    return bits(a) | bits(b) << 8 | bits(c) << 16 | bits(d) << 24;
#endif
}

/// Stores V elements in the element type of a cache. `factor` is int8_scale::factor.
template <CacheElement E, class Memory, int V>
RW_HD RW_INLINE void store_as(E* to, const f8_divisor& divisor, float factor, const float (&x)[V]) {
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
            for (int i = 0; i < V; ++i) scaled[i] = quotient_of(x[i], divisor.value, divisor.reciprocal);
            RW_UNROLL
            for (int i = 0; i < count; ++i)
                words[i] = f8_bits<E>(scaled[4 * i], scaled[4 * i + 1], scaled[4 * i + 2], scaled[4 * i + 3]);
        }
        vec_bits<V> bits;
        RW_UNROLL
        for (int i = 0; i < vec_bits<V>::words; ++i) bits.value[i] = static_cast<typename vec_bits<V>::word>(words[i]);
        Memory::template store<V>(to, bits);
    }
}

}  // namespace detail

}  // namespace ropewalk::gpu
