// Kernel tables, each from the translation unit of its instruction set.
#pragma once

#include <ropewalk/llama/cpu/kernels.hpp>

namespace ropewalk::dispatch {

RW_HIDDEN extern const llama::cpu::kernel_table baseline_llama;
RW_HIDDEN extern const llama::cpu::kernel_table avx2_llama;
RW_HIDDEN extern const llama::cpu::kernel_table avx512_llama;
RW_HIDDEN extern const llama::cpu::kernel_table neon_llama;

}  // namespace ropewalk::dispatch
