// Groups of lanes that hold one head together, and their reductions.
#pragma once

#include <cstdint>

#include "ropewalk/core/bits.hpp"
#include "ropewalk/core/compiler.hpp"

namespace ropewalk::gpu {

/// Lanes per warp. A group has a power of two of lanes and starts at a multiple of its size, so it lies in one warp.
inline constexpr int warp_lanes = 32;

/// The operations of a reduction. Both are commutative, so every lane gets the same bits.
struct add {
    RW_HD RW_INLINE float operator()(float a, float b) const { return a + b; }
};
struct larger {
    RW_HD RW_INLINE std::uint32_t operator()(std::uint32_t a, std::uint32_t b) const { return a < b ? b : a; }
};

/// |x| as an integer of the same order. A NaN is the largest value, so a maximum keeps it.
RW_HD RW_INLINE constexpr std::uint32_t magnitude_bits(float x) {
    return ropewalk::detail::bit_cast<std::uint32_t>(x) & 0x7fffffffU;
}

/// The larger magnitude of two numbers, or a NaN. One instruction, where a comparison of their bits takes three.
RW_HD RW_INLINE float larger_magnitude(float a, float b) {
#if defined(RW_GPU_CODE)
    float larger;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(__builtin_fabsf(a)), "f"(__builtin_fabsf(b)));
    return larger;
#else
    return __builtin_fabsf(a) > __builtin_fabsf(b) || a != a ? a : b;
#endif
}

/// The largest magnitude of the elements of a lane, as an integer. Those of NaNs are larger than all others.
template <int Chunks, int V>
RW_HD RW_INLINE std::uint32_t largest_magnitude(const float (&values)[Chunks][2][V]) {
    float largest = 0;
    RW_UNROLL
    for (int i = 0; i < Chunks; ++i) {
        const auto& [a, b] = values[i];
        RW_UNROLL
        for (int j = 0; j < V; ++j) largest = larger_magnitude(largest, larger_magnitude(a[j], b[j]));
    }
    return magnitude_bits(largest);
}

/// The sum of N values, N a power of two: adds neighbours, then neighbouring sums. A group continues in the same order,
/// so the bits of a sum depend only on the order of the values, and neither on the number of values per lane nor on
/// trailing zeros.
template <int N>
RW_HD RW_INLINE float sum_of_neighbours(float (&values)[N]) {
    static_assert((N & (N - 1)) == 0, "the number of values must be a power of two");
    RW_UNROLL
    for (int distance = 1; distance < N; distance *= 2) {
        RW_UNROLL
        for (int i = 0; i < N; i += 2 * distance) values[i] += values[i + distance];
    }
    return values[0];
}

/// One lane of a device. All lanes of a warp must reach each reduction together.
struct device_lane {
    static constexpr int width = 1;

    static RW_HD RW_INLINE bool any(const bool (&values)[1]) {
#if defined(RW_GPU_CODE)
        return __any_sync(0xffffffffU, values[0]) != 0;
#else
        return values[0];
#endif
    }

    template <class Value, class Operation>
    static RW_HD RW_INLINE void combine(Value (&values)[1], int group, const Operation& operation) {
#if defined(RW_GPU_CODE)
        for (int distance = 1; distance < group; distance *= 2)
            values[0] = operation(values[0], __shfl_xor_sync(0xffffffffU, values[0], distance));
#else
        (void)values, (void)group, (void)operation;
#endif
    }
};

/// All lanes of a warp in lockstep on the host, to test kernels with groups.
struct host_warp {
    static constexpr int width = warp_lanes;

    static bool any(const bool (&values)[warp_lanes]) {
        bool result = false;
        for (const bool value : values) result = result || value;
        return result;
    }

    template <class Value, class Operation>
    static void combine(Value (&values)[warp_lanes], int group, const Operation& operation) {
        for (int distance = 1; distance < group; distance *= 2) {
            Value before[warp_lanes];
            for (int lane = 0; lane < warp_lanes; ++lane) before[lane] = values[lane];
            for (int lane = 0; lane < warp_lanes; ++lane)
                values[lane] = operation(before[lane], before[lane ^ distance]);
        }
    }
};

/// Runs lanes [index, index + Lanes::width) of a body: one lane per device thread, a whole warp on the host.
///
/// begin() initialises the state of a lane as far as load() needs it, and prepare() the rest, while the first heads
/// load. Each of steps() steps loads Body::heads_in_flight heads. Then it widens each head, reduces a sum(), calls
/// rotate(), reduces a largest measure(), and stores. steps() and group() are uniform over the launch. A warp in which
/// no lane sums() or measures() leaves out that reduction.
template <class Lanes, class Body>
RW_HD RW_INLINE void run_lanes(const Body& body, std::int64_t index) {
    constexpr int width = Lanes::width;
    typename Body::state state[width];
    for (int i = 0; i < width; ++i) body.begin(state[i], index + i);
    for (int i = 0; i < width; ++i) body.load(state[i]);
    for (int i = 0; i < width; ++i) body.prepare(state[i]);
    bool lanes[width], sums = false, measures = false;
    if constexpr (Body::can_sum) {
        for (int i = 0; i < width; ++i) lanes[i] = body.sums(state[i]);
        sums = Lanes::any(lanes);
    }
    if constexpr (Body::can_measure) {
        for (int i = 0; i < width; ++i) lanes[i] = body.measures(state[i]);
        measures = Lanes::any(lanes);
    }
    RW_KEEP_LOOP
    for (int step = 1;; ++step) {
        RW_UNROLL
        for (int head = 0; head < Body::heads_in_flight; ++head) {
            for (int i = 0; i < width; ++i) body.widen(state[i], head);
            if (sums) {
                float values[width];
                for (int i = 0; i < width; ++i) values[i] = body.sum(state[i]);
                Lanes::combine(values, body.group(), add{});
                for (int i = 0; i < width; ++i) body.take_sum(state[i], values[i]);
            }
            for (int i = 0; i < width; ++i) body.rotate(state[i]);
            if (measures) {
                std::uint32_t values[width];
                for (int i = 0; i < width; ++i) values[i] = body.measure(state[i]);
                Lanes::combine(values, body.group(), larger{});
                for (int i = 0; i < width; ++i) body.take_measure(state[i], values[i]);
            }
            for (int i = 0; i < width; ++i) body.store(state[i]);
        }
        if (step >= body.steps()) return;
        for (int i = 0; i < width; ++i) body.load(state[i]);
    }
}

}  // namespace ropewalk::gpu
