#if !defined(ROPEWALK_NO_XSIMD)
#define ROPEWALK_NO_XSIMD
#endif
#include "portable_kernels.hpp"

#include <dispatch/kernels.inl>

const ropewalk::cpu::rotate_kernel& test::portable_kernel(ropewalk::element_type type, ropewalk::layout_kind layout) {
    return ropewalk::dispatch::select_kernel<ropewalk::cpu::portable_arch>(type, layout);
}
