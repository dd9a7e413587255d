// Lanes that put several values together at once, and the exponential that they use.
#pragma once

#include "ropewalk/gpu/group.hpp"

namespace ropewalk::llama::gpu {

using ropewalk::gpu::add, ropewalk::gpu::sum_of_neighbours, ropewalk::gpu::warp_lanes;

/// Elements of a row that a lane has at once: 16 bytes of a 16-bit type.
inline constexpr int lane_elements = 8;
/// The widest head: what a warp holds.
inline constexpr int widest_head = warp_lanes * lane_elements;

/// Of two numbers the larger; of a number and a NaN the number.
struct larger_number {
    RW_HD RW_INLINE float operator()(float a, float b) const { return a < b || a != a ? b : a; }
};

/// One lane of a device: see device_lane. combine() puts together what lanes have which differ in the bits from `first`
/// up to `last` of their numbers, both powers of two: (1, 8) neighbours of a group of eight, (8, 32) those at the same
/// place of four such groups. All N values of a step are exchanged before the next, so that they wait together.
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
};

/// All lanes of a warp in step on the host, which is how kernels are tested.
struct host_lanes {
    static constexpr int width = warp_lanes;

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

/// 2^x within 2^-22 of it, 0 where that is below the normal numbers.
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

/// The maximum of no scores: finite, so that the difference of two is a number.
inline constexpr float no_score = -0x1p126F;

}  // namespace ropewalk::llama::gpu
