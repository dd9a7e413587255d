#include "fused.inl"

namespace ropewalk::cuda {
template void launch<f16>(layout_kind, const gpu::fused_plan&, int, const gpu::options&);
}  // namespace ropewalk::cuda
