// Kernels of a layer for one instruction set, except the rotation. Needs Eigen and xsimd.
//
// A program may compile this for several instruction sets. Every symbol must therefore carry the architecture in its
// name: no plain inline functions, no containers of the standard library. -DEigen=Eigen_<instruction set> renames
// Eigen's symbols, see bindings/dispatch/llama.
#pragma once

#include "ropewalk/llama/cpu/attend.hpp"
#include "ropewalk/llama/cpu/cache_rows.hpp"
#include "ropewalk/llama/cpu/kernels.hpp"
#include "ropewalk/llama/cpu/linear.hpp"
#include "ropewalk/llama/cpu/norm.hpp"

namespace ropewalk::llama::cpu {

/// Kernels for xsimd's architecture A. The caller adds `rotate`, `rerotate` and `prepare`.
template <class A>
constexpr kernel_table arch_kernels(const char* name) {
    return {.name = name,
            .linear = detail::linear<A>,
            .rms_norm = detail::rms_norm<A>,
            .silu_multiply = detail::silu_multiply<A>,
            .store_rows = detail::store_rows<A>,
            .load_rows = detail::load_rows<A>,
            .attend = detail::attend<A>};
}

}  // namespace ropewalk::llama::cpu
