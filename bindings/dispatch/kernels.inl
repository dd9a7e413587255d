// Kernels of one architecture A. Included only by kernels_*.cpp, each compiled for its instruction set.
#pragma once

#include <ropewalk/cpu/cos_sin.hpp>
#include <ropewalk/cpu/kernel.hpp>

#include "kernels.hpp"

namespace ropewalk::dispatch {

// A kernel takes minutes to compile under a sanitizer. There, each instruction set has one constant width and the
// general kernel; the tests of the header path cover all widths.
#if defined(ROPEWALK_FEW_WIDTHS)
inline constexpr bool few_widths = true;
#else
inline constexpr bool few_widths = false;
#endif

/// True where the kernels of A have one constant width only.
template <class A>
inline constexpr bool one_width = few_widths;

template <class T, class L, class A>
RW_INLINE cpu::kernel_function kernel_for(std::int64_t pairs) {
    if constexpr (one_width<A>) {
        constexpr std::int64_t common = 64;
        return pairs == common ? cpu::detail::rotate_kernel<T, L, A, common> : cpu::detail::rotate_kernel<T, L, A, 0>;
    } else {
        return cpu::detail::kernel_for<T, L, A>(pairs);
    }
}

template <class A, class L>
RW_INLINE cpu::kernel_function typed_kernel(element_type type, std::int64_t pairs) {
    switch (type) {
        case element_type::f32:
            return kernel_for<float, L, A>(pairs);
        case element_type::f16:
            return kernel_for<f16, L, A>(pairs);
        default:
            return kernel_for<bf16, L, A>(pairs);
    }
}

template <class A>
cpu::kernel_function select_kernel(element_type type, layout_kind layout, std::int64_t pairs) {
    return layout == layout_kind::half_split ? typed_kernel<A, half_split>(type, pairs)
                                             : typed_kernel<A, interleaved>(type, pairs);
}

template <class A>
constexpr kernel_set kernels_of(const char* name) {
    return {.name = name, .rotate = select_kernel<A>, .cos_sin = cpu::detail::table_kernel_for<A>};
}

}  // namespace ropewalk::dispatch
