#include <ropewalk/llama/cpu/arch_kernels.hpp>

#include "tables.hpp"

namespace ropewalk::dispatch {
const llama::cpu::kernel_table avx512_llama = llama::cpu::arch_kernels<xsimd::avx512bw>("avx512");
}  // namespace ropewalk::dispatch
