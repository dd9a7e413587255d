// Sums over the lanes of a register.
#pragma once

#include "ropewalk/cpu/simd/simd.hpp"

namespace ropewalk::llama::cpu::detail {

/// Halves are added to each other, so that rounding errors grow with the logarithm of the lanes. (xsimd's function has
/// had two names.)
template <class A>
RW_INLINE float sum_of_lanes(const ropewalk::cpu::detail::floats<A>& value) {
    constexpr std::int64_t lanes = ropewalk::cpu::detail::lane_count<A>;
    alignas(64) float parts[lanes];
    value.store_aligned(parts);
    for (std::int64_t half = lanes / 2; half > 0; half /= 2) {
        for (std::int64_t i = 0; i < half; ++i) parts[i] += parts[i + half];
    }
    return parts[0];
}

}  // namespace ropewalk::llama::cpu::detail
