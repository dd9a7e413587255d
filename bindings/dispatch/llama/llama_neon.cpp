#include <ropewalk/llama/arch_kernels.hpp>

#include "tables.hpp"

namespace ropewalk::dispatch {
const attention::kernel_table neon_llama = attention::arch_kernels<xsimd::neon64>("neon");
}  // namespace ropewalk::dispatch
