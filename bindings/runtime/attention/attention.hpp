// The kernels of the attention stack, compiled for several instruction sets and chosen once at run time.
#pragma once

#include <ropewalk/attention/kernels.hpp>

namespace ropewalk::runtime {

/// Those of instruction_set(). Throws where that throws.
const attention::kernel_table& attention_kernels();

}  // namespace ropewalk::runtime
