// Kernels of one architecture A. Included only by kernels_*.cpp, each compiled for its instruction set.
#pragma once

#include <ropewalk/cpu/cos_sin.hpp>
#include <ropewalk/cpu/fused_kernel.hpp>
#include <ropewalk/cpu/kernel.hpp>
#include <ropewalk/cpu/rerotate_cache.hpp>

#include "kernels.hpp"

namespace ropewalk::dispatch {

template <class L, class A>
const cpu::rotate_kernel& typed_kernel(element_type type) {
    switch (type) {
        case element_type::f32:
            return cpu::kernel_of<float, L, A>;
        case element_type::f16:
            return cpu::kernel_of<f16, L, A>;
        default:
            return cpu::kernel_of<bf16, L, A>;
    }
}

template <class A>
const cpu::rotate_kernel& select_kernel(element_type type, layout_kind layout) {
    return layout == layout_kind::half_split ? typed_kernel<half_split, A>(type) : typed_kernel<interleaved, A>(type);
}

template <class A>
constexpr kernel_set kernels_of(const char* name) {
    return {.name = name,
            .register_bits = 8 * sizeof(cpu::detail::floats<A>),
            .rotate = select_kernel<A>,
            .cos_sin = cpu::detail::table_kernel_for<A>,
            .fused = cpu::detail::run_fused<A>,
            .rerotate_cache = cpu::detail::rerotate_cache_tokens<A>};
}

}  // namespace ropewalk::dispatch
