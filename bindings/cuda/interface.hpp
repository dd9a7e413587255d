// What crosses between the Python module and the one for CUDA: plain data, plain functions, and no exception. Each is
// whole without the other, so that the first imports where there is no CUDA.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <ropewalk/gpu/plan.hpp>

namespace ropewalk::cuda {

/// Why a function of the module returned false.
struct failure {
    char text[1024];
};

/// What the module's capsule points to.
struct device_functions {
    std::uint32_t version;
    std::uint32_t plan_bytes;  ///< of a launch_plan, which both must understand alike

    /// What plans must know of a device.
    bool (*shape)(int device, gpu::device_shape& shape, failure& why) noexcept;
    /// Launches a plan on a device, and leaves the current device what it was.
    bool (*run)(layout_kind layout, const gpu::launch_plan& plan, int device, const gpu::options& chosen,
                failure& why) noexcept;
};

inline constexpr std::uint32_t interface_version = 1;
inline constexpr char capsule_name[] = "ropewalk._cuda.interface";

static_assert(std::is_trivially_copyable_v<gpu::launch_plan> && std::is_trivially_copyable_v<gpu::options>);

}  // namespace ropewalk::cuda
