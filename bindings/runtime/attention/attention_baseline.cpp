#include <ropewalk/attention/arch_kernels.hpp>

#include "tables.hpp"

namespace ropewalk::runtime {
const attention::kernel_table baseline_attention = attention::arch_kernels<xsimd::sse2>("baseline");
}  // namespace ropewalk::runtime
