#include "kernels_inl.hpp"

namespace ropewalk::runtime {
const kernel_set baseline_kernels = kernels_of<xsimd::sse2>("baseline");
}  // namespace ropewalk::runtime
