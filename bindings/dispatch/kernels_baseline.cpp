#include "kernels.inl"

namespace ropewalk::dispatch {

/// Machines of before 2013 run them: one width is enough there, and saves half of the build.
template <>
inline constexpr bool one_width<xsimd::sse2> = true;

const kernel_set baseline_kernels = kernels_of<xsimd::sse2>("baseline");

}  // namespace ropewalk::dispatch
