#include "kernels.inl"

namespace ropewalk::dispatch {
const kernel_set portable_kernels = kernels_of<cpu::native_arch>("portable");
}  // namespace ropewalk::dispatch
