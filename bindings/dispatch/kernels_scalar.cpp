#include "kernels.inl"

namespace ropewalk::dispatch {

/// The fallback without xsimd should compile quickly.
template <>
inline constexpr bool one_width<cpu::scalar_arch> = true;

const kernel_set scalar_kernels = kernels_of<cpu::scalar_arch>("scalar");

}  // namespace ropewalk::dispatch
