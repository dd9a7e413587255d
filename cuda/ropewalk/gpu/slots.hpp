// Which elements of a head, and which pairs, one thread turns.
#pragma once

#include <cstdint>

#include "ropewalk/core/layout.hpp"
#include "ropewalk/core/rotation.hpp"

namespace ropewalk::gpu {

/// Cosines and sines of V pairs.
template <int V>
struct turns {
    float cos[V];
    float sin[V];
};

/// Slot number `at` of a head has two runs of V elements, at first() and second() behind the first element that turns,
/// which make V pairs. Slots 0 … pairs/V − 1 make all of them, so V must divide `pairs`. The runs of neighbouring slots
/// are neighbours: a warp reads and writes whole lines in either layout.
template <Layout L, int V>
struct slots {
    static RW_HD RW_INLINE constexpr std::int64_t first(std::int64_t at, std::int64_t pairs) {
        return L::first(at * V, pairs);
    }
    static RW_HD RW_INLINE constexpr std::int64_t second(std::int64_t at, std::int64_t pairs) {
        return L::second(at * V, pairs);
    }
    /// The pair number i of the slot.
    static RW_HD RW_INLINE constexpr std::int64_t pair(std::int64_t at, int i, std::int64_t /*pairs*/) {
        return at * V + i;
    }
    static RW_HD RW_INLINE void turn(float (&a)[V], float (&b)[V], const turns<V>& by) {
        RW_UNROLL
        for (int i = 0; i < V; ++i) {
            const auto turned = rotate_pair(a[i], b[i], by.cos[i], by.sin[i]);
            a[i] = turned.first;
            b[i] = turned.second;
        }
    }
};

/// Neighbours are pairs: V/2 of them in a run, and the second run half a width behind the first.
template <int V>
    requires(V > 1)
struct slots<interleaved, V> {
    static RW_HD RW_INLINE constexpr std::int64_t first(std::int64_t at, std::int64_t /*pairs*/) { return at * V; }
    static RW_HD RW_INLINE constexpr std::int64_t second(std::int64_t at, std::int64_t pairs) { return at * V + pairs; }
    static RW_HD RW_INLINE constexpr std::int64_t pair(std::int64_t at, int i, std::int64_t pairs) {
        return at * (V / 2) + (i < V / 2 ? i : pairs / 2 + i - V / 2);
    }
    static RW_HD RW_INLINE void turn(float (&a)[V], float (&b)[V], const turns<V>& by) {
        RW_UNROLL
        for (int i = 0; i < V / 2; ++i) {
            turn_one(a[2 * i], a[2 * i + 1], by.cos[i], by.sin[i]);
            turn_one(b[2 * i], b[2 * i + 1], by.cos[i + V / 2], by.sin[i + V / 2]);
        }
    }

private:
    static RW_HD RW_INLINE void turn_one(float& x, float& y, float c, float s) {
        const auto turned = rotate_pair(x, y, c, s);
        x = turned.first;
        y = turned.second;
    }
};

}  // namespace ropewalk::gpu
