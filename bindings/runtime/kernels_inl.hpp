// The kernels of one architecture A. Included by the kernels_*.cpp files alone, each compiled for its instruction set.
#pragma once

#include <ropewalk/cpu/cos_sin.hpp>

#include "kernels.hpp"

namespace ropewalk::runtime {

template <class A, class L>
RW_INLINE cpu::range_function rotate_kernel(element_type type, std::int64_t pairs) {
    switch (type) {
        case element_type::f32:
            return cpu::detail::kernel_for<float, L, A>(pairs);
        case element_type::f16:
            return cpu::detail::kernel_for<f16, L, A>(pairs);
        default:
            return cpu::detail::kernel_for<bf16, L, A>(pairs);
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

}  // namespace ropewalk::runtime
