#include <ropewalk/llama/arch_kernels.hpp>

#include "tables.hpp"

namespace ropewalk::dispatch {
const attention::kernel_table baseline_llama = attention::arch_kernels<xsimd::sse2>("baseline");
}  // namespace ropewalk::dispatch
