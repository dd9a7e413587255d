// Kernels that the translation unit of one instruction set provides.
#pragma once

#include <span>

#include <ropewalk/core/layout.hpp>
#include <ropewalk/cpu/fused_params.hpp>
#include <ropewalk/cpu/params.hpp>
#include <ropewalk/cpu/rerotate_cache_plan.hpp>
#include <ropewalk/cpu/rotate_kernel.hpp>

namespace ropewalk::dispatch {

struct kernel_set {
    const char* name;
    std::int64_t register_bits;  ///< of a vector; those without vectors count as the narrowest
    /// Of all types but f64, whose kernel no instruction set repeats: see kernel_for() in dispatch.cpp.
    const cpu::rotate_kernel& (*rotate)(element_type type, layout_kind layout);
    cpu::kernel_function (*cos_sin)(layout_kind layout);
    cpu::fused_function fused;
    cpu::rerotate_cache_function rerotate_cache;
};

/// The kernels of this build, those of the widest instruction set first.
RW_HIDDEN std::span<const kernel_set* const> compiled_kernels();

RW_HIDDEN extern const kernel_set baseline_kernels;
RW_HIDDEN extern const kernel_set avx2_kernels;
RW_HIDDEN extern const kernel_set avx512_kernels;
RW_HIDDEN extern const kernel_set neon_kernels;
RW_HIDDEN extern const kernel_set portable_kernels;  ///< the only ones without xsimd

}  // namespace ropewalk::dispatch
