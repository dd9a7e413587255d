#include <ropewalk/llama/cpu/arch_kernels.hpp>

#include "tables.hpp"

namespace ropewalk::dispatch {
const llama::cpu::kernel_table avx2_llama = llama::cpu::arch_kernels<xsimd::fma3<xsimd::avx2>>("avx2");
}  // namespace ropewalk::dispatch
