// The fused kernels of one element type. Included by the fused_*.cu files alone.
#pragma once

#include <ropewalk/gpu/fused.cuh>

#include "kernels.hpp"

namespace ropewalk::cuda {

template <Element T>
void launch(layout_kind layout, const gpu::fused_plan& plan, int device, const gpu::options& options) {
    if (layout == layout_kind::half_split) return gpu::detail::run<T, half_split>(plan, device, options);
    gpu::detail::run<T, interleaved>(plan, device, options);
}

}  // namespace ropewalk::cuda
