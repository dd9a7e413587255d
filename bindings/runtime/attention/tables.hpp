// What one translation unit an instruction set provides: arch_kernels().
#pragma once

#include <ropewalk/attention/kernels.hpp>

namespace ropewalk::runtime {

RW_HIDDEN extern const attention::kernel_table baseline_attention;
RW_HIDDEN extern const attention::kernel_table avx2_attention;
RW_HIDDEN extern const attention::kernel_table avx512_attention;
RW_HIDDEN extern const attention::kernel_table neon_attention;

}  // namespace ropewalk::runtime
