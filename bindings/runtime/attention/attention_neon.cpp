#include <ropewalk/attention/arch_kernels.hpp>

#include "tables.hpp"

namespace ropewalk::runtime {
const attention::kernel_table neon_attention = attention::arch_kernels<xsimd::neon64>("neon");
}  // namespace ropewalk::runtime
