// Registers of the kernels: the core's, and the sum of their lanes.
#pragma once

#include "ropewalk/cpu/simd/load_store.hpp"

namespace ropewalk::llama::cpu::detail {

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

}  // namespace ropewalk::llama::cpu::detail
