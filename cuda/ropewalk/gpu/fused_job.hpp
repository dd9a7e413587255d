// What a fused kernel takes: plain data by value.
#pragma once

#include "ropewalk/gpu/cache_store.hpp"
#include "ropewalk/gpu/job.hpp"

namespace ropewalk::gpu {

/// RMSNorm of the heads of one side as a kernel applies it.
struct norm_source {
    const void* weight = nullptr;  ///< [head_dim]; null: no norm
    element_type type = element_type::f32;
    float epsilon = 0;
    float shift = 0;           ///< added to every weight
    float reciprocal_dim = 0;  ///< 1 / head_dim
};

/// The heads of queries, keys or values and what becomes of them. `out` or the sink may be null.
struct fused_side : heads_source {
    norm_source norm;
    cache_sink sink;
    std::int64_t head_dim = 0, rotary_offset = 0;
    std::int64_t pairs = 0;    ///< 0 for values, which do not turn
    std::int32_t turning = 0;  ///< slots of a head that turn
    std::int32_t slots = 0;    ///< and those behind them which do not
};

/// The plan of a fused call. Lanes of a head are the innermost, then groups of heads, those of q before those of k and
/// v, then tokens. Every thread of a warp takes part to the end, because lanes wait for each other.
struct fused_frame {
    fused_side side[3];  ///< q, k, v
    turn_source source;
    slot_source places;
    std::int64_t threads = 0;       ///< whole warps
    std::int64_t items = 0;         ///< groups of heads of all tokens
    std::int64_t tokens = 0;        ///< of a batch row
    std::int32_t first_group[3]{};  ///< of each side
    std::int32_t groups = 0;
    std::int32_t lanes = 1;  ///< of a head; a power of two where they put something together
    std::int32_t steps = 0;  ///< of Body::rows heads each
    bool sums = false;       ///< some side is normed
    bool measures = false;   ///< some side goes to int8
};

/// Slots of a head in one lane, where they have V elements twice: as many as let a warp hold the widest head.
constexpr int slots_a_lane(int v, int capacity) {
    return capacity / (warp_lanes * v) > 1 ? capacity / (warp_lanes * v) : 1;
}
/// Heads whose loads a lane starts together: what its registers have room for.
constexpr int heads_at_once(int v, int capacity) { return slots_a_lane(v, capacity) * v > 8 || v == 1 ? 1 : 2; }

/// A kernel's parameter.
template <class Rates>
struct fused_job : fused_frame {
    Rates rates;
};

}  // namespace ropewalk::gpu
