// What the kernels need of a SIMD register beyond xsimd's arithmetic: lane shuffles, half precision, 64-bit products.
// One code serves xsimd 8 to 14, and ROPEWALK_NO_XSIMD none: then the kernels turn one pair at a time.
#pragma once

#include <cstdint>
#include <type_traits>

#include "ropewalk/core/compiler.hpp"
#include "ropewalk/core/element.hpp"
#include "ropewalk/core/lanes.hpp"

namespace ropewalk::cpu {

/// The architecture of one pair at a time: the last ones of a row, or all of them where there is no xsimd.
struct scalar_arch {};

}  // namespace ropewalk::cpu

#if defined(ROPEWALK_NO_XSIMD)
#include "ropewalk/cpu/simd_none.inl"
#else
#include "ropewalk/cpu/simd_xsimd.inl"
#endif
