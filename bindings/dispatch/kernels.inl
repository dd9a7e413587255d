// The kernels of one architecture A. Included by the kernels_*.cpp files alone, each compiled for its instruction set.
#pragma once

#include <ropewalk/cpu/cos_sin.hpp>

#include "kernels.hpp"

namespace ropewalk::dispatch {

// Under a sanitizer a kernel takes minutes to compile: one width of its own and the general one are looked at there for
// every instruction set, and all of them in the tests of the header path.
#if defined(ROPEWALK_FEW_WIDTHS)
inline constexpr bool few_widths = true;
#else
inline constexpr bool few_widths = false;
#endif

/// Whether the kernels of A have one width of their own, and not all that models have.
template <class A>
inline constexpr bool one_width = few_widths;

template <class T, class L, class A>
RW_INLINE cpu::range_function kernel_for(std::int64_t pairs) {
    if constexpr (one_width<A>) {
        constexpr std::int64_t usual = 64;
        return pairs == usual ? cpu::detail::rotate_kernel<T, L, A, usual>::run
                              : cpu::detail::rotate_kernel<T, L, A, 0>::run;
    } else {
        return cpu::detail::kernel_for<T, L, A>(pairs);
    }
}

template <class A, class L>
RW_INLINE cpu::range_function rotate_kernel(element_type type, std::int64_t pairs) {
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
cpu::range_function rotate_kernel(element_type type, layout_kind layout, std::int64_t pairs) {
    return layout == layout_kind::half_split ? rotate_kernel<A, half_split>(type, pairs)
                                             : rotate_kernel<A, interleaved>(type, pairs);
}

template <class A>
constexpr kernel_set kernels_of(const char* name) {
    return {name, rotate_kernel<A>, cpu::detail::table_kernel_for<A>};
}

}  // namespace ropewalk::dispatch
