#include "kernels.inl"

namespace ropewalk::dispatch {

/// Only machines from before 2013 run these kernels: one constant width saves half of the build.
template <>
inline constexpr bool one_width<xsimd::sse2> = true;

const kernel_set baseline_kernels = kernels_of<xsimd::sse2>("baseline");

}  // namespace ropewalk::dispatch
