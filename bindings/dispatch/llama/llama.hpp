// The kernels of the attention stack, compiled for several instruction sets and chosen once at run time.
#pragma once

#include <ropewalk/llama/cpu/kernels.hpp>

namespace ropewalk::dispatch {

/// Those of instruction_set(). Throws where that throws.
const llama::cpu::kernel_table& llama_kernels();

}  // namespace ropewalk::dispatch
