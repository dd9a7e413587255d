#include <ropewalk/llama/arch_kernels.hpp>

#include "tables.hpp"

namespace ropewalk::dispatch {
const attention::kernel_table avx2_llama = attention::arch_kernels<xsimd::fma3<xsimd::avx2>>("avx2");
}  // namespace ropewalk::dispatch
