// RMSNorm and the activation of the MLP.
#pragma once

#include <cmath>

#include "ropewalk/core/bits.hpp"
#include "ropewalk/llama/cpu/simd.hpp"
#include "ropewalk/llama/cpu/threads.hpp"

namespace ropewalk::llama::cpu::detail {

/// Sum of squares in four registers, so that consecutive additions are independent.
template <class A>
RW_INLINE float sum_of_squares(const float* x, std::int64_t count) {
    using F = floats<A>;
    constexpr std::int64_t lanes = lane_count<A>;
    F sums[4] = {F(0.0F), F(0.0F), F(0.0F), F(0.0F)};
    std::int64_t i = 0;
    for (; i + 4 * lanes <= count; i += 4 * lanes) {
        RW_UNROLL
        for (int k = 0; k < 4; ++k) {
            const F value = F::load_unaligned(x + i + k * lanes);
            sums[k] = multiply_add<A>(value, value, sums[k]);
        }
    }
    float rest = 0;
    for (; i < count; ++i) rest += x[i] * x[i];
    return sum_of_lanes<A>((sums[0] + sums[1]) + (sums[2] + sums[3])) + rest;
}

/// Returns whether the squares of the row have a finite sum.
template <class A>
bool rms_norm_row(const float* x, std::int64_t width, const float* weight, float epsilon, float* y) {
    using F = floats<A>;
    constexpr std::int64_t lanes = lane_count<A>;
    const float mean = sum_of_squares<A>(x, width) / static_cast<float>(width);
    const float inverse = 1.0F / std::sqrt(mean + epsilon);
    std::int64_t i = 0;
    for (; i + lanes <= width; i += lanes)
        (F::load_unaligned(x + i) * F(inverse) * F::load_unaligned(weight + i)).store_unaligned(y + i);
    for (; i < width; ++i) y[i] = x[i] * inverse * weight[i];
    return ropewalk::detail::is_finite(static_cast<double>(mean));
}

/// kernel_table::rms_norm.
template <class A>
std::int64_t rms_norm(const float* x, std::int64_t tokens, std::int64_t width, const float* weight, float epsilon,
                      float* y, int threads) {
    const std::int64_t shares = tokens * width >> 15;  // of 128 KiB, which pay for waking a thread
    std::int64_t wrong = -1;
    parallel_for<A>(tokens, thread_count(shares < tokens ? shares : tokens, threads), [&](std::int64_t t) {
        if (rms_norm_row<A>(x + t * width, width, weight, epsilon, y + t * width)) return;
#if defined(RW_OPENMP)
#pragma omp critical(ropewalk_rms_norm)
#endif
        if (wrong < 0 || t < wrong) wrong = t;
    });
    return wrong;
}

/// gate / (1 + e^−gate) · up. Below −88 the exponential overflows float32; the quotient then differs from −0 by at most
/// 6e-37, its value at −88. A NaN stays a NaN, because xsimd::max returns its second argument.
template <class A>
RW_INLINE floats<A> silu_times(const floats<A>& gate, const floats<A>& up) {
    using F = floats<A>;
    const F bounded = xsimd::max(F(-88.0F), gate);
    return bounded / (F(1.0F) + xsimd::exp(F(0.0F) - bounded)) * up;
}

template <class A>
void silu_multiply_range(float* gate, const float* up, std::int64_t count) {
    using F = floats<A>;
    constexpr std::int64_t lanes = lane_count<A>;
    std::int64_t i = 0;
    for (; i + lanes <= count; i += lanes)
        silu_times<A>(F::load_unaligned(gate + i), F::load_unaligned(up + i)).store_unaligned(gate + i);
    if (i == count) return;
    alignas(64) float rest[2][lanes] = {};
    for (std::int64_t k = 0; i + k < count; ++k) rest[0][k] = gate[i + k], rest[1][k] = up[i + k];
    silu_times<A>(F::load_aligned(rest[0]), F::load_aligned(rest[1])).store_aligned(rest[0]);
    for (std::int64_t k = 0; i + k < count; ++k) gate[i + k] = rest[0][k];
}

/// kernel_table::silu_multiply.
template <class A>
void silu_multiply(float* gate, const float* up, std::int64_t count, int threads) {
    constexpr std::int64_t grain = 16384;  // 128 KiB of gate and up
    const std::int64_t grains = (count + grain - 1) / grain;
    parallel_for<A>(grains, thread_count(grains, threads), [&](std::int64_t i) {
        const std::int64_t begin = i * grain, left = count - begin;
        silu_multiply_range<A>(gate + begin, up + begin, left < grain ? left : grain);
    });
}

}  // namespace ropewalk::llama::cpu::detail
