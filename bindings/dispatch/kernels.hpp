// What one translation unit an instruction set provides.
#pragma once

#include <ropewalk/core/layout.hpp>
#include <ropewalk/cpu/job.hpp>

namespace ropewalk::dispatch {

struct kernel_set {
    const char* name;
    cpu::range_function (*rotate)(element_type type, layout_kind layout, std::int64_t pairs);
    cpu::range_function (*cos_sin)(layout_kind layout);
};

RW_HIDDEN extern const kernel_set baseline_kernels;
RW_HIDDEN extern const kernel_set avx2_kernels;
RW_HIDDEN extern const kernel_set avx512_kernels;
RW_HIDDEN extern const kernel_set neon_kernels;
RW_HIDDEN extern const kernel_set scalar_kernels;  ///< in place of all others where there is no xsimd

}  // namespace ropewalk::dispatch
