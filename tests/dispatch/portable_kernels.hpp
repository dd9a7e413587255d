// Kernels without xsimd, to compare the instruction sets with.
#pragma once

#include <ropewalk/core/layout.hpp>
#include <ropewalk/cpu/rotate_kernel.hpp>

namespace test {

const ropewalk::cpu::rotate_kernel& portable_kernel(ropewalk::element_type type, ropewalk::layout_kind layout);

}  // namespace test
