// Kernels of a layer for the instruction set of the translation unit. Needs Eigen and xsimd.
#pragma once

#include "ropewalk/cpu/prepared.hpp"
#include "ropewalk/cpu/rotate.hpp"
#include "ropewalk/llama/cpu/arch_kernels.hpp"

namespace ropewalk::llama::cpu {

namespace detail {

template <class A>
const ropewalk::cpu::rotate_kernel& rotation_kernel(layout_kind layout) {
    return layout == layout_kind::half_split ? ropewalk::cpu::kernel_of<float, half_split, A>
                                             : ropewalk::cpu::kernel_of<float, interleaved, A>;
}

template <class A>
void rotate(layout_kind layout, const tensor& q, const tensor& k, const Encoding& encoding, const positions& positions,
            int threads) {
    const ropewalk::cpu::rotate_plan plan = ropewalk::cpu::make_plan(layout, q, k, q, k, encoding, positions, {});
    ropewalk::cpu::execute(plan.params, rotation_kernel<A>(layout).run, threads);
}

template <class A>
void rerotate(layout_kind layout, const tensor& k, const Encoding& source, const Encoding& target,
              const positions& positions, int threads) {
    const ropewalk::cpu::rotate_plan plan =
        ropewalk::cpu::make_rerotation_plan(layout, k, k, source, positions, target, positions);
    ropewalk::cpu::execute(plan.params, rotation_kernel<A>(layout).run, threads);
}

template <class A>
ropewalk::cpu::prepared_rotation prepare(layout_kind layout, const tensor& q, const tensor& k,
                                         const Encoding& encoding) {
    return {rotation_kernel<A>(layout), layout, q, k, q, k, encoding};
}

}  // namespace detail

/// Kernels for the widest architecture that the translation unit is compiled for, such as -mavx2 -mfma -mf16c. A is
/// part of the symbol, so that files compiled for different architectures do not share it.
template <class A = ropewalk::cpu::native_arch>
const kernel_table& native_kernels() {
    static const kernel_table table = [] {
        kernel_table kernels = arch_kernels<A>(A::name());
        kernels.rotate = detail::rotate<A>, kernels.rerotate = detail::rerotate<A>;
        kernels.prepare = detail::prepare<A>;
        return kernels;
    }();
    return table;
}

}  // namespace ropewalk::llama::cpu
