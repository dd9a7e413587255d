// How a key-value cache stores numbers, on the CPU and on a GPU.
#pragma once

#include <concepts>
#include <cstdint>
#include <string_view>

#include "ropewalk/core/bits.hpp"
#include "ropewalk/core/element.hpp"
#include "ropewalk/core/fp8.hpp"

namespace ropewalk {

/// How a cache stores a number x.
enum class cache_type : std::uint8_t {
    f32,
    f16,
    bf16,
    f8e4m3,  ///< x / scale, one scale a tensor
    i8,      ///< round(x · 127 / m) where m is the largest |x| of the head; m / 127 is stored beside it
};

template <class E>
concept CacheElement = Element<E> || std::same_as<E, f8e4m3> || std::same_as<E, std::int8_t>;

template <CacheElement E>
constexpr cache_type cache_type_of() {
    if constexpr (std::same_as<E, float>) return cache_type::f32;
    if constexpr (std::same_as<E, f16>) return cache_type::f16;
    if constexpr (std::same_as<E, bf16>) return cache_type::bf16;
    return std::same_as<E, f8e4m3> ? cache_type::f8e4m3 : cache_type::i8;
}

constexpr std::int64_t size_of(cache_type type) {
    return type == cache_type::f32 ? 4 : type == cache_type::f16 || type == cache_type::bf16 ? 2 : 1;
}

constexpr std::string_view to_string(cache_type type) {
    constexpr std::string_view names[] = {"f32", "f16", "bf16", "f8e4m3", "i8"};
    return names[static_cast<int>(type)];
}

/// What an int8 head is multiplied by and what is stored beside it, from its largest magnitude as an integer. Where
/// that is below 2^-120 the head becomes zeros of scale 0; where it is infinite or a NaN the scale is a NaN, and so is
/// the head when it is read.
struct int8_scale {
    float factor = 0;
    float stored = 0;

    static RW_HD RW_INLINE int8_scale of(std::uint32_t largest) {
        const float magnitude = ropewalk::detail::bit_cast<float>(largest);
        if (largest >= 0x7f800000U) return {0, __builtin_nanf("")};
        if (largest < 0x03800000U) return {};
        return {127.0F / magnitude, magnitude / 127.0F};
    }
};

}  // namespace ropewalk
