// The kernels of a layer for the instruction set of this translation unit. Needs Eigen and xsimd.
#pragma once

#include "ropewalk/attention/arch_kernels.hpp"
#include "ropewalk/cpu/rotate.hpp"

namespace ropewalk::attention {

namespace detail {

inline cpu::range_function rotation_kernel(layout_kind layout, std::int64_t pairs) {
    return layout == layout_kind::half_split ? cpu::detail::kernel_for<float, half_split, cpu::native_arch>(pairs)
                                             : cpu::detail::kernel_for<float, interleaved, cpu::native_arch>(pairs);
}

inline void rotate(layout_kind layout, const tensor& q, const tensor& k, const Encoding& encoding,
                   const positions& where, int threads) {
    const cpu::plan prepared = cpu::make_plan(layout, q, k, q, k, encoding, where, {});
    cpu::execute(prepared, rotation_kernel(layout, prepared.work.pairs), threads);
}

inline void rerotate(layout_kind layout, const tensor& k, const Encoding& from, const Encoding& to,
                     const positions& where, int threads) {
    const cpu::plan prepared = cpu::make_rerotation_plan(layout, k, k, from, where, to, where);
    cpu::execute(prepared, rotation_kernel(layout, prepared.work.pairs), threads);
}

}  // namespace detail

/// Kernels for the widest architecture that this translation unit is compiled for: -mavx2 -mfma -mf16c, say.
inline const kernel_table& native_kernels() {
    static const kernel_table table = [] {
        kernel_table made = arch_kernels<cpu::native_arch>(cpu::native_arch::name());
        made.rotate = detail::rotate, made.rerotate = detail::rerotate;
        return made;
    }();
    return table;
}

}  // namespace ropewalk::attention
