#include "kernels.inl"

namespace ropewalk::dispatch {
const kernel_set neon_kernels = kernels_of<xsimd::neon64>("neon");
}  // namespace ropewalk::dispatch
