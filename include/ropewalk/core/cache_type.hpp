// Storage types of a key-value cache, for CPU and GPU.
#pragma once

#include <concepts>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include "ropewalk/core/bits.hpp"
#include "ropewalk/core/element.hpp"
#include "ropewalk/core/fp8.hpp"

namespace ropewalk {

/// The stored form of a number x.
enum class cache_type : std::uint8_t {
    f32,
    f16,
    bf16,
    f8e4m3,  ///< x / scale, one scale per tensor
    f8e5m2,  ///< likewise
    i8,      ///< round(x · 127 / m), m the largest |x| of the head; m / 127 is stored next to the head
};

/// Returns whether a tensor of this type has one scale.
RW_HD constexpr bool is_f8(cache_type type) { return type == cache_type::f8e4m3 || type == cache_type::f8e5m2; }

/// An element type of a key-value cache.
template <class E>
concept CacheElement = Element<E> || std::same_as<E, f8e4m3> || std::same_as<E, f8e5m2> || std::same_as<E, std::int8_t>;

template <CacheElement E>
constexpr cache_type cache_type_of() {
    if constexpr (std::same_as<E, float>) return cache_type::f32;
    if constexpr (std::same_as<E, f16>) return cache_type::f16;
    if constexpr (std::same_as<E, bf16>) return cache_type::bf16;
    if constexpr (std::same_as<E, f8e4m3>) return cache_type::f8e4m3;
    return std::same_as<E, f8e5m2> ? cache_type::f8e5m2 : cache_type::i8;
}

/// The type of a cache with the elements of a tensor of f32, f16 or bf16.
constexpr cache_type cache_type_of(element_type type) {
    return type == element_type::f32 ? cache_type::f32 : type == element_type::f16 ? cache_type::f16 : cache_type::bf16;
}

/// Returns the bytes per element.
RW_HD constexpr std::int64_t size_of(cache_type type) {
    return type == cache_type::f32 ? 4 : type == cache_type::f16 || type == cache_type::bf16 ? 2 : 1;
}

constexpr std::string_view to_string(cache_type type) {
    constexpr std::string_view names[] = {"f32", "f16", "bf16", "f8e4m3", "f8e5m2", "i8"};
    return names[static_cast<int>(type)];
}

namespace detail {

/// x / 127, rounded once, without a division: a quotient and its correction (Markstein). For 2^-120 ≤ x < 2^128.
RW_HD RW_INLINE float quotient_by_127(float x) {
    constexpr float reciprocal = 1.0F / 127.0F;
    const float estimate = x * reciprocal;
    return __builtin_fmaf(__builtin_fmaf(estimate, -127.0F, x), reciprocal, estimate);
}

}  // namespace detail

/// Scale of one int8 head. A head whose largest magnitude is below 2^-120 becomes zeros with scale 0. A head with an
/// infinity or a NaN gets a NaN as its scale, so that it reads back as NaN.
struct int8_scale {
    float factor = 0;  ///< multiplies the elements before rounding
    float stored = 0;  ///< multiplies the stored integers on reading

    /// Returns the scale for the bit pattern of the largest |x| of the head.
    static RW_HD RW_INLINE int8_scale of(std::uint32_t largest) {
        const float magnitude = ropewalk::detail::bit_cast<float>(largest);
        constexpr std::uint32_t least = 0x03800000U, infinity = 0x7f800000U;
#if defined(RW_GPU_CODE)
        if (largest - least < infinity - least) return {127.0F / magnitude, detail::quotient_by_127(magnitude)};
#else
        if (largest - least < infinity - least) return {127.0F / magnitude, magnitude / 127.0F};
#endif
        return {0, largest < least ? 0.0F : __builtin_nanf("")};
    }
};

namespace detail {

/// Calls f(std::type_identity<E>) with the element type of a cache.
template <class F>
RW_HD RW_INLINE void with_cache_element(cache_type type, const F& f) {
    if (type == cache_type::f32) return f(std::type_identity<float>{});
    if (type == cache_type::f16) return f(std::type_identity<f16>{});
    if (type == cache_type::bf16) return f(std::type_identity<bf16>{});
    if (type == cache_type::i8) return f(std::type_identity<std::int8_t>{});
    if (type == cache_type::f8e5m2) return f(std::type_identity<f8e5m2>{});
    f(std::type_identity<f8e4m3>{});
}

}  // namespace detail

}  // namespace ropewalk
