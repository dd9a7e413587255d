#include <ropewalk/llama/cpu/arch_kernels.hpp>

#include "tables.hpp"

namespace ropewalk::dispatch {
const llama::cpu::kernel_table neon_llama = llama::cpu::arch_kernels<xsimd::neon64>("neon");
}  // namespace ropewalk::dispatch
