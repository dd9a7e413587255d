#include "kernels.inl"

namespace ropewalk::dispatch {
const kernel_set avx2_kernels = kernels_of<xsimd::fma3<xsimd::avx2>>("avx2");
}  // namespace ropewalk::dispatch
