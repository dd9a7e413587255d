#include "kernels.inl"

namespace ropewalk::cuda {
template void launch<f16>(layout_kind, const gpu::launch_plan&, int, const gpu::options&);
}  // namespace ropewalk::cuda
