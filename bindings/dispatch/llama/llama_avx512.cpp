#include <ropewalk/llama/arch_kernels.hpp>

#include "tables.hpp"

namespace ropewalk::dispatch {
const attention::kernel_table avx512_llama = attention::arch_kernels<xsimd::avx512bw>("avx512");
}  // namespace ropewalk::dispatch
