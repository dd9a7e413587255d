// What a layer does element by element, or row by row: the normalisation and the activation.
#pragma once

#include <cmath>

#include "ropewalk/llama/cpu/simd.hpp"
#include "ropewalk/llama/cpu/threads.hpp"

namespace ropewalk::llama::cpu::detail {

/// Sum of squares, in four registers so that the additions do not wait for each other.
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

template <class A>
void rms_norm_row(const float* x, std::int64_t width, const float* weight, float epsilon, float* y) {
    using F = floats<A>;
    constexpr std::int64_t lanes = lane_count<A>;
    const float mean = sum_of_squares<A>(x, width) / static_cast<float>(width);
    const float inverse = 1.0F / std::sqrt(mean + epsilon);
    std::int64_t i = 0;
    for (; i + lanes <= width; i += lanes)
        (F::load_unaligned(x + i) * F(inverse) * F::load_unaligned(weight + i)).store_unaligned(y + i);
    for (; i < width; ++i) y[i] = x[i] * inverse * weight[i];
}

/// kernel_table::rms_norm.
template <class A>
void rms_norm(const float* x, std::int64_t tokens, std::int64_t width, const float* weight, float epsilon, float* y,
              int threads) {
    // A thread is worth waking for 128 KiB.
    const std::int64_t paying = tokens * width >> 15;
    [[maybe_unused]] const int team = thread_count<A>(paying < tokens ? paying : tokens, threads);
#if defined(RW_OPENMP)
#pragma omp parallel for num_threads(team) schedule(static) if (team > 1)
#endif
    for (std::int64_t t = 0; t < tokens; ++t) rms_norm_row<A>(x + t * width, width, weight, epsilon, y + t * width);
}

/// gate / (1 + e^−gate) · up. Below −88 the exponential leaves float32; the quotient is then −0 but for 6e-37, which is
/// what a gate of −88 gives. A NaN stays one: xsimd::max returns its second argument.
template <class A>
RW_INLINE floats<A> silu_times(const floats<A>& gate, const floats<A>& up) {
    using F = floats<A>;
    const F bounded = xsimd::max(F(-88.0F), gate);
    return bounded / (F(1.0F) + xsimd::exp(F(0.0F) - bounded)) * up;
}

template <class A>
void silu_multiply_part(float* gate, const float* up, std::int64_t count) {
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
    [[maybe_unused]] const int team = thread_count<A>(grains, threads);
#if defined(RW_OPENMP)
#pragma omp parallel for num_threads(team) schedule(static) if (team > 1)
#endif
    for (std::int64_t one = 0; one < grains; ++one) {
        const std::int64_t begin = one * grain, left = count - begin;
        silu_multiply_part<A>(gate + begin, up + begin, left < grain ? left : grain);
    }
}

}  // namespace ropewalk::llama::cpu::detail
