// The kernels of a layer for one instruction set, all but the rotation. Needs Eigen and xsimd.
//
// Compiled for several instruction sets in one program, nothing here may leave a symbol behind that does not carry the
// architecture: neither plain inline functions nor containers of the standard library. Eigen's own names are told apart
// by -DEigen=Eigen_<instruction set>, see bindings/dispatch/attention.
#pragma once

#include "ropewalk/llama/cpu/attend.hpp"
#include "ropewalk/llama/cpu/cache_rows.hpp"
#include "ropewalk/llama/cpu/kernels.hpp"
#include "ropewalk/llama/cpu/linear.hpp"
#include "ropewalk/llama/cpu/norm.hpp"

namespace ropewalk::llama::cpu {

/// The kernels of architecture A, of xsimd's; `rotate` and `rerotate` are for the caller to add.
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
