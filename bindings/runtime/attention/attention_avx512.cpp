#include <ropewalk/attention/arch_kernels.hpp>

#include "tables.hpp"

namespace ropewalk::runtime {
const attention::kernel_table avx512_attention = attention::arch_kernels<xsimd::avx512bw>("avx512");
}  // namespace ropewalk::runtime
