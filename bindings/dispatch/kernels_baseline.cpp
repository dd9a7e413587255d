#include "kernels.inl"

namespace ropewalk::dispatch {
const kernel_set baseline_kernels = kernels_of<xsimd::sse2>("baseline");
}  // namespace ropewalk::dispatch
