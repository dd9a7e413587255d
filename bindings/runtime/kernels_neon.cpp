#include "kernels_inl.hpp"

namespace ropewalk::runtime {
const kernel_set neon_kernels = kernels_of<xsimd::neon64>("neon");
}  // namespace ropewalk::runtime
