#include <ropewalk/gpu/rerotate_cache.cuh>

#include "kernels.hpp"

namespace ropewalk::cuda {

void launch(layout_kind layout, const gpu::rerotate_cache_plan& plan, int device, const gpu::options& options) {
    if (layout == layout_kind::half_split) return gpu::detail::run<half_split>(plan, device, options);
    gpu::detail::run<interleaved>(plan, device, options);
}

}  // namespace ropewalk::cuda
