#include "kernels.inl"

namespace ropewalk::dispatch {

/// What stands in where there is no xsimd shall compile soon.
template <>
inline constexpr bool one_width<cpu::scalar_arch> = true;

const kernel_set scalar_kernels = kernels_of<cpu::scalar_arch>("scalar");

}  // namespace ropewalk::dispatch
