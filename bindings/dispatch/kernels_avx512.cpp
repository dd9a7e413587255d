#include "kernels.inl"

namespace ropewalk::dispatch {
const kernel_set avx512_kernels = kernels_of<xsimd::avx512bw>("avx512");
}  // namespace ropewalk::dispatch
