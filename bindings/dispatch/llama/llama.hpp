// Kernels of the Llama stack, compiled for several instruction sets. The first call selects one.
#pragma once

#include <ropewalk/llama/cpu/kernels.hpp>

namespace ropewalk::dispatch {

/// Returns the kernels of instruction_set(), with its errors.
const llama::cpu::kernel_table& llama_kernels();

}  // namespace ropewalk::dispatch
