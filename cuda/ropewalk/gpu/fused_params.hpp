// Parameters of a fused kernel: plain data by value.
#pragma once

#include "ropewalk/gpu/cache_store.hpp"
#include "ropewalk/gpu/params.hpp"

namespace ropewalk::gpu {

/// RMSNorm of the heads of one side.
struct norm_params {
    const void* weight = nullptr;  ///< [head_dim]; null: no norm
    element_type type = element_type::f32;
    float epsilon = 0;
    float shift = 0;           ///< added to every weight
    float reciprocal_dim = 0;  ///< 1 / head_dim
};

/// Destinations per side: an output and a cache.
inline constexpr int max_sinks = 2;

/// The heads of queries, keys or values, with their norm and their destinations. `out` is unused.
struct fused_heads : heads_params {
    norm_params norm{};
    cache_sink sinks[max_sinks]{};  ///< the output first where there are both
    std::int32_t head_dim = 0, rotary_offset = 0;
    std::int32_t pairs = 0;            ///< 0 for values, which are not rotated
    std::int32_t rotating_chunks = 0;  ///< per head
    std::int32_t chunks = 0;           ///< per head, those outside the rotary part included
    bool measures = false;             ///< a destination is int8
};

/// Parameters of a fused kernel, except the rates. Lanes of a head are the innermost dimension of the thread index,
/// then groups of heads (those of q, then of k, then of v), then tokens. All lanes of a warp run to the end, because
/// they take part in shuffles.
struct fused_kernel_base {
    ropewalk::rotate_params rotation{};  ///< of q and k; see rotate_kernel_base
    fused_heads side[3];                 ///< q, k, v
    slot_reader slots;
    std::int64_t threads = 0;                  ///< a multiple of the lanes of a warp
    std::int64_t items = 0;                    ///< groups of heads of all tokens
    std::int64_t tokens = 0;                   ///< per batch row
    ropewalk::detail::index_splitter split{};  ///< of a thread's index: rows, tokens, groups, lanes
    std::int32_t first_group[3]{};             ///< of each side
    std::int32_t groups = 0;
    std::int32_t lanes = 1;  ///< per head; a power of two where lanes reduce values
    std::int32_t steps = 0;  ///< of Body::heads_in_flight heads each
};

/// The optional parts of a fused kernel. A kernel without a part has no code for it.
struct fused_parts {
    bool norms = true;     ///< RMSNorm of queries or keys
    bool converts = true;  ///< destinations of another type than the input
};

/// Chunks per lane, for chunks of two vecs of v elements, so that a warp holds the widest head.
constexpr int chunks_per_lane(int v, int capacity) {
    return capacity / (warp_lanes * v) > 1 ? capacity / (warp_lanes * v) : 1;
}

/// Heads that a lane loads at once, limited by its registers.
constexpr int heads_at_once(int v, int capacity) { return chunks_per_lane(v, capacity) * v > 8 || v == 1 ? 1 : 2; }

/// Parameters of a fused kernel.
template <class Rates>
struct fused_kernel_params : fused_kernel_base {
    Rates rates;
};

}  // namespace ropewalk::gpu
