// Registers of the kernels: the core's, and the sum of their lanes.
#pragma once

#include <cstdint>
#include <type_traits>

#include "ropewalk/cpu/simd/load_store.hpp"

namespace ropewalk::llama::cpu::detail {

using ropewalk::cpu::detail::even_lanes, ropewalk::cpu::detail::odd_lanes;
using ropewalk::cpu::detail::floats, ropewalk::cpu::detail::lane_count, ropewalk::cpu::detail::is_avx512;
using ropewalk::cpu::detail::load_elements, ropewalk::cpu::detail::multiply_add, ropewalk::cpu::detail::store_elements;

/// Adds halves to each other, so that rounding errors grow with the logarithm of the lanes. Two versions of xsimd name
/// theirs differently.
template <class A>
RW_INLINE float sum_of_lanes(const floats<A>& value) {
    alignas(64) float parts[lane_count<A>];
    value.store_aligned(parts);
    for (std::int64_t half = lane_count<A> / 2; half > 0; half /= 2) {
        for (std::int64_t i = 0; i < half; ++i) parts[i] += parts[i + half];
    }
    return parts[0];
}

/// Loads lane_count<A> elements as floats. int8 is not scaled.
template <class A, class T>
RW_INLINE floats<A> load_floats(const T* from) {
    if constexpr (std::is_same_v<T, std::int8_t>) {
        return ropewalk::cpu::detail::load_signed_bytes<A>(from);
    } else {
        return load_elements<A>(from);
    }
}

/// Converts a row to floats. `factor` multiplies int8 only.
template <class A, class T>
RW_INLINE void widen_row(const T* from, float factor, std::int64_t width, float* to) {
    constexpr std::int64_t lanes = lane_count<A>;
    constexpr bool scaled = std::is_same_v<T, std::int8_t>;
    const floats<A> factors(factor);
    std::int64_t i = 0;
    for (; i + lanes <= width; i += lanes) {
        const floats<A> value = load_floats<A>(from + i);
        (scaled ? value * factors : value).store_unaligned(to + i);
    }
    for (; i < width; ++i) to[i] = scaled ? static_cast<float>(from[i]) * factor : static_cast<float>(from[i]);
}

}  // namespace ropewalk::llama::cpu::detail
