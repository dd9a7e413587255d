// The lanes that hold one head, and how they put together what each of them has.
#pragma once

#include <cstdint>

#include "ropewalk/core/bits.hpp"
#include "ropewalk/core/compiler.hpp"

namespace ropewalk::gpu {

/// Lanes that run in step. A group is a power of two of them, from a multiple of its size on, so it never straddles a
/// warp.
inline constexpr int warp_lanes = 32;

/// What a group may combine its values by. Both are commutative, so that every lane gets the same bits.
struct add {
    RW_HD RW_INLINE float operator()(float a, float b) const { return a + b; }
};
struct larger {
    RW_HD RW_INLINE std::uint32_t operator()(std::uint32_t a, std::uint32_t b) const { return a < b ? b : a; }
};

/// |x| as an integer of the same order, in which a NaN is the largest: a maximum that loses none.
RW_HD RW_INLINE constexpr std::uint32_t magnitude_bits(float x) {
    return ropewalk::detail::bit_cast<std::uint32_t>(x) & 0x7fffffffU;
}

/// The sum of N values, N a power of two: neighbours first, then neighbours of those. A group goes on in this manner,
/// so the order of a sum, and with it every bit, depends on the places of the values alone: not on how many of them a
/// lane has, nor on zeros behind them.
template <int N>
RW_HD RW_INLINE float sum_of_neighbours(float (&values)[N]) {
    static_assert((N & (N - 1)) == 0, "neighbours are added by twos");
    RW_UNROLL
    for (int apart = 1; apart < N; apart *= 2) {
        RW_UNROLL
        for (int i = 0; i < N; i += 2 * apart) values[i] += values[i + apart];
    }
    return values[0];
}

/// One lane of a device. The others answer at the same instruction: all lanes of a warp must come to it.
struct device_lane {
    static constexpr int width = 1;

    template <class Value, class Operation>
    static RW_HD RW_INLINE void combine(Value (&values)[1], int group, const Operation& operation) {
#if defined(RW_GPU_CODE)
        for (int apart = 1; apart < group; apart *= 2)
            values[0] = operation(values[0], __shfl_xor_sync(0xffffffffU, values[0], apart));
#else
        (void)values, (void)group, (void)operation;
#endif
    }
};

/// All lanes of a warp in step on the host, which is how kernels with groups are tested.
struct host_warp {
    static constexpr int width = warp_lanes;

    template <class Value, class Operation>
    static void combine(Value (&values)[warp_lanes], int group, const Operation& operation) {
        for (int apart = 1; apart < group; apart *= 2) {
            Value before[warp_lanes];
            for (int lane = 0; lane < warp_lanes; ++lane) before[lane] = values[lane];
            for (int lane = 0; lane < warp_lanes; ++lane) values[lane] = operation(before[lane], before[lane ^ apart]);
        }
    }
};

/// Runs the lanes [index, index + Lanes::width) of a body: a thread of a device has one, the host a whole warp.
///
/// A body begins with a state a lane, then goes through `steps()` steps. In each it loads Body::rows heads, where
/// sums() puts together a sum for each of them, turns them, where measures() puts together a largest magnitude, and
/// stores. What steps(),
/// group(), sums() and measures() return holds for a whole launch, so that all lanes meet.
template <class Lanes, class Body>
RW_HD RW_INLINE void run_lanes(const Body& body, std::int64_t index) {
    constexpr int width = Lanes::width;
    typename Body::state state[width];
    for (int i = 0; i < width; ++i) body.begin(state[i], index + i);
    for (int step = 0; step < body.steps(); ++step) {
        for (int i = 0; i < width; ++i) body.load(state[i]);
        if (body.sums()) {
            RW_UNROLL
            for (int row = 0; row < Body::rows; ++row) {
                float values[width];
                for (int i = 0; i < width; ++i) values[i] = body.sum(state[i], row);
                Lanes::combine(values, body.group(), add{});
                for (int i = 0; i < width; ++i) body.take_sum(state[i], row, values[i]);
            }
        }
        for (int i = 0; i < width; ++i) body.turn(state[i]);
        if (body.measures()) {
            RW_UNROLL
            for (int row = 0; row < Body::rows; ++row) {
                std::uint32_t values[width];
                for (int i = 0; i < width; ++i) values[i] = body.measure(state[i], row);
                Lanes::combine(values, body.group(), larger{});
                for (int i = 0; i < width; ++i) body.take_measure(state[i], row, values[i]);
            }
        }
        for (int i = 0; i < width; ++i) body.store(state[i]);
    }
}

}  // namespace ropewalk::gpu
