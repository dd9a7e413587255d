#include <ropewalk/llama/cpu/arch_kernels.hpp>

#include "tables.hpp"

namespace ropewalk::dispatch {
const llama::cpu::kernel_table baseline_llama = llama::cpu::arch_kernels<xsimd::sse2>("baseline");
}  // namespace ropewalk::dispatch
