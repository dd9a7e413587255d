// Launch of a plan on a device: device properties, pointer checks, the launch and its errors.
#pragma once

#include <cuda_runtime.h>

#include <map>
#include <utility>

#include "ropewalk/gpu/overlap.hpp"
#include "ropewalk/gpu/plan.hpp"

namespace ropewalk::gpu::detail {

/// Throws a CUDA error, with the name of the failed action.
inline void expect_success(cudaError_t status, std::string_view action) {
    if (status == cudaSuccess) return;
    // Clears the error, which the exception reports.
    (void)cudaGetLastError();
    ropewalk::detail::fail("{}: {} ({})", action, cudaGetErrorString(status), cudaGetErrorName(status));
}

inline int current_device() {
    int device = 0;
    expect_success(cudaGetDevice(&device), "no CUDA device");
    return device;
}

inline int attribute(cudaDeviceAttr name, int device) {
    int value = 0;
    expect_success(cudaDeviceGetAttribute(&value, name, device), "cannot query the attributes of the device");
    return value;
}

/// The shape of a device. Each thread queries the runtime once per device.
inline device_shape shape_of_device(int device) {
    constexpr int cached_devices = 64;
    thread_local device_shape shapes[cached_devices] = {};
    thread_local bool known[cached_devices] = {};
    const auto query = [&] {
        return device_shape{.multiprocessors = attribute(cudaDevAttrMultiProcessorCount, device),
                            .threads_per_multiprocessor = attribute(cudaDevAttrMaxThreadsPerMultiProcessor, device)};
    };
    if (device >= cached_devices) return query();
    if (!known[device]) shapes[device] = query(), known[device] = true;
    return shapes[device];
}

/// Throws unless the device can access the memory at the pointer. Null is valid.
inline void check_pointer(std::string_view name, const void* pointer, int device) {
    if (pointer == nullptr) return;
    cudaPointerAttributes attributes{};
    expect_success(cudaPointerGetAttributes(&attributes, pointer), name);
    RW_EXPECTS(attributes.type != cudaMemoryTypeUnregistered, "{} at {} is in host memory, which device {} cannot read",
               name, pointer, device);
    RW_EXPECTS(attributes.type != cudaMemoryTypeDevice || attributes.device == device,
               "{} at {} is on device {}, but the current device is {}", name, pointer, attributes.device, device);
}

inline void check_pointers(const ropewalk::rotate_params& params, int device) {
    check_pointer("q", params.q_in.data, device);
    check_pointer("k", params.k_in.data, device);
    if (params.q_out.data != params.q_in.data) check_pointer("q's output", params.q_out.data, device);
    if (params.k_out.data != params.k_in.data) check_pointer("k's output", params.k_out.data, device);
    check_pointer("the positions", params.target.positions.data, device);
    check_pointer("the positions", params.source.positions.data, device);
    check_pointer("the table of cosines", params.table.cos, device);
    check_pointer("the table of sines", params.table.sin, device);
}

/// Returns whether wait_for_previous() waits in the code that the current device runs. Code for less than 9.0 has no
/// wait, even where the driver compiled it for a newer device. Each thread queries the runtime once per kernel and
/// device. Hidden like the kernels, so that modules do not share the answers.
RW_HIDDEN inline bool waits_for_previous(const void* kernel) {
    thread_local std::map<std::pair<const void*, int>, bool> known;
    const std::pair key{kernel, current_device()};
    if (const auto found = known.find(key); found != known.end()) return found->second;
    cudaFuncAttributes code{};
    expect_success(cudaFuncGetAttributes(&code, kernel), "cannot query the compute capability of a kernel");
    return known[key] = code.ptxVersion >= 90;
}

/// Launches kernel(params) on the stream of the options. An error message contains the shape of `heads`.
template <class Params>
RW_HIDDEN void launch(void (*kernel)(Params), const Params& params, const launch_shape& shape, const options& options,
                      const tensor& heads = {}) {
    cudaLaunchAttribute overlap{};
    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(shape.grid));
    config.blockDim = dim3(static_cast<unsigned>(shape.block));
    config.stream = options.stream;
    config.attrs = &overlap;
    config.numAttrs = options.overlap_previous && waits_for_previous(reinterpret_cast<const void*>(kernel)) ? 1 : 0;
    const cudaError_t status = cudaLaunchKernelEx(&config, kernel, params);
    if (status == cudaSuccess) return;
    expect_success(status, ropewalk::detail::format("launch of {} blocks of {} threads for {}", shape.grid, shape.block,
                                                    ropewalk::detail::shape_of("heads", heads)));
}

/// The index of this thread in its launch.
__device__ inline std::int64_t launch_index() { return std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; }

}  // namespace ropewalk::gpu::detail
