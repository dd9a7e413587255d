// The kernels of a layer for the instruction set of this translation unit. Needs Eigen and xsimd.
#pragma once

#include "ropewalk/cpu/rotate.hpp"
#include "ropewalk/llama/cpu/arch_kernels.hpp"

namespace ropewalk::llama::cpu {

namespace detail {

template <class A>
ropewalk::cpu::kernel_function rotation_kernel(layout_kind layout, std::int64_t pairs) {
    return layout == layout_kind::half_split ? ropewalk::cpu::detail::kernel_for<float, half_split, A>(pairs)
                                             : ropewalk::cpu::detail::kernel_for<float, interleaved, A>(pairs);
}

template <class A>
void rotate(layout_kind layout, const tensor& q, const tensor& k, const Encoding& encoding, const positions& where,
            int threads) {
    const ropewalk::cpu::rotate_plan plan = ropewalk::cpu::make_plan(layout, q, k, q, k, encoding, where, {});
    ropewalk::cpu::execute(plan.params, rotation_kernel<A>(layout, plan.params.pairs), threads);
}

template <class A>
void rerotate(layout_kind layout, const tensor& k, const Encoding& from, const Encoding& to, const positions& where,
              int threads) {
    const ropewalk::cpu::rotate_plan plan = ropewalk::cpu::make_rerotation_plan(layout, k, k, from, where, to, where);
    ropewalk::cpu::execute(plan.params, rotation_kernel<A>(layout, plan.params.pairs), threads);
}

}  // namespace detail

/// Kernels for the widest architecture that this translation unit is compiled for: -mavx2 -mfma -mf16c, say. A is in
/// the name so that files compiled for different ones each get their own.
template <class A = ropewalk::cpu::native_arch>
const kernel_table& native_kernels() {
    static const kernel_table table = [] {
        kernel_table made = arch_kernels<A>(A::name());
        made.rotate = detail::rotate<A>, made.rerotate = detail::rerotate<A>;
        return made;
    }();
    return table;
}

}  // namespace ropewalk::llama::cpu
