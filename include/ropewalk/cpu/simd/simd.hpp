// SIMD operations beyond the arithmetic of xsimd: lane shuffles, half precision, 64-bit products.
// One code base serves xsimd 8 to 14. With ROPEWALK_NO_XSIMD the kernels rotate one pair at a time.
#pragma once

#include <cstdint>
#include <type_traits>

#include "ropewalk/core/compiler.hpp"
#include "ropewalk/core/element.hpp"
#include "ropewalk/core/lanes.hpp"

namespace ropewalk::cpu {

/// The architecture of one pair at a time: for the end of a row, and for all pairs without xsimd.
struct scalar_arch {};

}  // namespace ropewalk::cpu

#if defined(ROPEWALK_NO_XSIMD)
#include "ropewalk/cpu/simd/none.inl"
#else
#include "ropewalk/cpu/simd/xsimd.inl"
#endif
