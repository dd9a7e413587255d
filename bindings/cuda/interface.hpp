// Interface between the modules ropewalk._ropewalk and ropewalk._cuda: plain data, plain functions, no exceptions.
// Neither links the other, so that the first one imports without CUDA.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <ropewalk/gpu/fused_plan.hpp>
#include <ropewalk/gpu/rerotate_cache_plan.hpp>

namespace ropewalk::cuda {

/// The message of a function that returned false.
struct failure {
    char text[1024];
};

/// Table of functions in the module's capsule.
struct device_functions {
    std::uint32_t version;
    std::uint32_t plan_bytes;  ///< size of the plans, which must agree in both modules

    /// Reads the properties of a device that plans need.
    bool (*shape)(int device, gpu::device_shape& shape, failure& failure) noexcept;
    /// Launches a plan on a device, then restores the current device.
    bool (*run)(layout_kind layout, const gpu::launch_plan& plan, int device, const gpu::options& options,
                failure& failure) noexcept;
    /// The same for a fused call.
    bool (*run_fused)(layout_kind layout, const gpu::fused_plan& plan, int device, const gpu::options& options,
                      failure& failure) noexcept;
    /// The same for cached keys.
    bool (*run_rerotate_cache)(layout_kind layout, const gpu::rerotate_cache_plan& plan, int device,
                               const gpu::options& options, failure& failure) noexcept;
};

inline constexpr std::uint32_t interface_version = 3;
inline constexpr std::uint32_t plan_bytes =
    sizeof(gpu::launch_plan) + sizeof(gpu::fused_plan) + sizeof(gpu::rerotate_cache_plan);
inline constexpr char capsule_name[] = "ropewalk._cuda.interface";

static_assert(std::is_trivially_copyable_v<gpu::launch_plan> && std::is_trivially_copyable_v<gpu::fused_plan> &&
              std::is_trivially_copyable_v<gpu::rerotate_cache_plan> && std::is_trivially_copyable_v<gpu::options>);

}  // namespace ropewalk::cuda
