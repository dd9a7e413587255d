// Functions of the translation units that nvcc compiles.
#pragma once

#include "interface.hpp"

namespace ropewalk::cuda {

/// Launches a plan on the current device. Defined in kernels_<type>.cu, and in fused_<type>.cu for fused calls.
template <Element T>
RW_HIDDEN void launch(layout_kind layout, const gpu::launch_plan& plan, int device, const gpu::options& options);
template <Element T>
RW_HIDDEN void launch(layout_kind layout, const gpu::fused_plan& plan, int device, const gpu::options& options);

/// Launches the re-encoding of a cache of any type. Defined in rerotate_cache.cu.
RW_HIDDEN void launch(layout_kind layout, const gpu::rerotate_cache_plan& plan, int device,
                      const gpu::options& options);

/// The table that the module exports.
RW_HIDDEN extern const device_functions functions;

}  // namespace ropewalk::cuda
