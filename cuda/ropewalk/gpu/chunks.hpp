// Partition of the rotary part of a head into chunks, one per thread.
#pragma once

#include <cstdint>

#include "ropewalk/core/layout.hpp"
#include "ropewalk/core/rotation.hpp"

namespace ropewalk::gpu {

/// Cosines and sines of V pairs.
template <int V>
struct cos_sin_values {
    float cos[V];
    float sin[V];
};

/// Chunk i of a head consists of two vecs of V elements each, which hold V pairs. first() and second() are the offsets
/// of the vecs in the rotary part. Chunks 0 … pairs/V − 1 cover the rotary part, so V must divide `pairs`. Vecs of
/// neighbouring chunks are neighbours in memory, so a warp accesses whole cache lines in either layout.
template <Layout L, int V>
struct chunks {
    static RW_HD RW_INLINE constexpr std::int64_t first(std::int64_t chunk, std::int64_t pairs) {
        return L::first(chunk * V, pairs);
    }
    static RW_HD RW_INLINE constexpr std::int64_t second(std::int64_t chunk, std::int64_t pairs) {
        return L::second(chunk * V, pairs);
    }
    /// The index of pair i of the chunk in the head.
    static RW_HD RW_INLINE constexpr std::int64_t pair(std::int64_t chunk, int i, std::int64_t /*pairs*/) {
        return chunk * V + i;
    }
    static RW_HD RW_INLINE void rotate(float (&a)[V], float (&b)[V], const cos_sin_values<V>& values) {
        RW_UNROLL
        for (int i = 0; i < V; ++i) {
            const auto result = rotate_pair(a[i], b[i], values.cos[i], values.sin[i]);
            a[i] = result.first;
            b[i] = result.second;
        }
    }
};

/// Interleaved pairs: each vec holds V/2 whole pairs, and the second vec lies half the rotary part after the first.
template <int V>
    requires(V > 1)
struct chunks<interleaved, V> {
    static RW_HD RW_INLINE constexpr std::int64_t first(std::int64_t chunk, std::int64_t /*pairs*/) {
        return chunk * V;
    }
    static RW_HD RW_INLINE constexpr std::int64_t second(std::int64_t chunk, std::int64_t pairs) {
        return chunk * V + pairs;
    }
    static RW_HD RW_INLINE constexpr std::int64_t pair(std::int64_t chunk, int i, std::int64_t pairs) {
        return chunk * (V / 2) + (i < V / 2 ? i : pairs / 2 + i - V / 2);
    }
    static RW_HD RW_INLINE void rotate(float (&a)[V], float (&b)[V], const cos_sin_values<V>& values) {
        const auto rotate_in_place = [](float& x, float& y, float c, float s) {
            const auto result = rotate_pair(x, y, c, s);
            x = result.first;
            y = result.second;
        };
        RW_UNROLL
        for (int i = 0; i < V / 2; ++i) {
            rotate_in_place(a[2 * i], a[2 * i + 1], values.cos[i], values.sin[i]);
            rotate_in_place(b[2 * i], b[2 * i + 1], values.cos[i + V / 2], values.sin[i + V / 2]);
        }
    }
};

}  // namespace ropewalk::gpu
