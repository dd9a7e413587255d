#include "kernels_inl.hpp"

namespace ropewalk::runtime {
const kernel_set avx2_kernels = kernels_of<xsimd::fma3<xsimd::avx2>>("avx2");
}  // namespace ropewalk::runtime
