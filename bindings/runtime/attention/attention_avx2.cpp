#include <ropewalk/attention/arch_kernels.hpp>

#include "tables.hpp"

namespace ropewalk::runtime {
const attention::kernel_table avx2_attention = attention::arch_kernels<xsimd::fma3<xsimd::avx2>>("avx2");
}  // namespace ropewalk::runtime
