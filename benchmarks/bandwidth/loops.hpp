// Plain loops over the bytes of a rotation: scale, convert and store, whose time bounds the time of a rotation, and
// rotations with a table.
#pragma once

#include <cstdint>
#include <string_view>

#include <ropewalk/core/element.hpp>
#include <ropewalk/core/layout.hpp>

namespace bench {

/// Rotates a token [heads, head_dim] in place. cos and sin are [head_dim / 2].
using rotation_loop = void (*)(void* token, std::int64_t heads, std::int64_t head_dim, const float* cos,
                               const float* sin);

/// Loops of one instruction set over contiguous elements, unrolled by four registers. Software prefetches made none of
/// them faster, in cache or in memory.
struct bandwidth_loops {
    std::string_view instruction_set;
    void (*scale)(float* data, std::int64_t count, float factor);                       ///< data *= factor
    void (*scale_into)(const float* in, float* out, std::int64_t count, float factor);  ///< out = in * factor
    void (*convert_f16)(ropewalk::f16* data, std::int64_t count, float factor);         ///< widen, multiply, narrow
    void (*convert_bf16)(ropewalk::bf16* data, std::int64_t count, float factor);       ///< widen, multiply, narrow
    void (*store)(float* data, std::int64_t count, float value);                        ///< data = value
    /// RMSNorm of heads in place, rounded to their type.
    void (*norm)(ropewalk::element_type type, void* heads, std::int64_t count, std::int64_t head_dim,
                 const float* weights, float epsilon);
    /// The loop written by hand in AVX2 intrinsics, where the set has AVX2; otherwise a loop that the compiler
    /// vectorises.
    rotation_loop (*rotation)(ropewalk::element_type type, ropewalk::layout_kind layout, bool in_cache);
};

/// Returns the loops for a name that dispatch::instruction_set() returns.
const bandwidth_loops& loops_for(std::string_view instruction_set);

}  // namespace bench
