// The most that a machine can do with the same bytes: what a rotation is measured against.
#pragma once

#include <cstdint>
#include <string_view>

#include <ropewalk/core/element.hpp>

namespace ceilings {

/// Loops of one instruction set over contiguous elements, each unrolled four registers wide. A software prefetch made
/// none of them faster, in cache or out of it.
struct loops {
    std::string_view name;
    void (*scale)(float* data, std::int64_t count, float factor);                       ///< data *= factor
    void (*scale_into)(const float* in, float* out, std::int64_t count, float factor);  ///< out = in * factor
    void (*convert_f16)(ropewalk::f16* data, std::int64_t count, float factor);         ///< widen, multiply, narrow
    void (*convert_bf16)(ropewalk::bf16* data, std::int64_t count, float factor);
    void (*store)(float* data, std::int64_t count, float value);  ///< data = value
};

/// The loops for one of the names that dispatch::instruction_set() returns.
const loops& loops_for(std::string_view instruction_set);

}  // namespace ceilings
