// From a plan to a device: which device, whose memory, the launch and its errors.
#pragma once

#include <cuda_runtime.h>

#include "ropewalk/gpu/plan.hpp"

namespace ropewalk::gpu {

namespace detail {

/// Throws for a CUDA error, with what was tried.
inline void expect_success(cudaError_t status, std::string_view what) {
    if (status == cudaSuccess) return;
    // Errors of a launch stay behind for whoever asks next; this one has been told.
    (void)cudaGetLastError();
    ropewalk::detail::fail("{}: {} ({})", what, cudaGetErrorString(status), cudaGetErrorName(status));
}

/// The current device.
inline int current_device() {
    int device = 0;
    expect_success(cudaGetDevice(&device), "no CUDA device");
    return device;
}

inline int attribute(cudaDeviceAttr which, int device) {
    int value = 0;
    expect_success(cudaDeviceGetAttribute(&value, which, device), "a device would not say what it is");
    return value;
}

/// Its shape, which each thread asks the runtime for once a device.
inline device_shape shape_of_device(int device) {
    constexpr int remembered = 64;
    thread_local device_shape known[remembered] = {};
    thread_local bool asked[remembered] = {};
    const auto ask = [&] {
        return device_shape{attribute(cudaDevAttrMultiProcessorCount, device),
                            attribute(cudaDevAttrMaxThreadsPerMultiProcessor, device)};
    };
    if (device >= remembered) return ask();
    if (!asked[device]) known[device] = ask(), asked[device] = true;
    return known[device];
}

/// Throws unless the device may read and write what lies at the pointer.
inline void check_pointer(std::string_view name, const void* pointer, int device) {
    if (pointer == nullptr) return;
    cudaPointerAttributes attributes{};
    expect_success(cudaPointerGetAttributes(&attributes, pointer), name);
    RW_EXPECTS(attributes.type != cudaMemoryTypeUnregistered, "{} at {} is in host memory, which device {} cannot read",
               name, pointer, device);
    RW_EXPECTS(attributes.type != cudaMemoryTypeDevice || attributes.device == device,
               "{} at {} is on device {}, the current one is {}", name, pointer, attributes.device, device);
}

inline void check_pointers(const ropewalk::rotate_params& work, int device) {
    check_pointer("q", work.q_in.data, device);
    check_pointer("k", work.k_in.data, device);
    if (work.q_out.data != work.q_in.data) check_pointer("q's output", work.q_out.data, device);
    if (work.k_out.data != work.k_in.data) check_pointer("k's output", work.k_out.data, device);
    check_pointer("the positions", work.target.positions.data, device);
    check_pointer("the positions", work.source.positions.data, device);
    check_pointer("the table of cosines", work.table.cos, device);
    check_pointer("the table of sines", work.table.sin, device);
}

/// Waits for the kernel before this one where the launch let it begin early. Without that it is no wait.
__device__ inline void wait_for_previous() {
#if defined(RW_GPU_CODE) && RW_GPU_CODE >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// Whether that is in the code which the current device runs: code for less than 9.0 lacks it, also where the driver
/// has compiled it for more.
inline bool waits_for_previous(const void* kernel) {
    cudaFuncAttributes code{};
    expect_success(cudaFuncGetAttributes(&code, kernel), "a kernel would not say what it was compiled for");
    return code.ptxVersion >= 90;
}

/// Launches kernel(job) on the caller's stream. An error names the shape of `about`, q or k, say.
template <class Job>
RW_HIDDEN void launch(void (*kernel)(Job), const Job& job, const launch_shape& shape, const options& chosen,
                      const tensor& about = {}) {
    cudaLaunchAttribute early{};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(shape.grid));
    config.blockDim = dim3(static_cast<unsigned>(shape.block));
    config.stream = chosen.stream;
    config.attrs = &early;
    config.numAttrs = chosen.overlap_previous && waits_for_previous(reinterpret_cast<const void*>(kernel)) ? 1 : 0;
    const cudaError_t status = cudaLaunchKernelEx(&config, kernel, job);
    if (status == cudaSuccess) return;
    expect_success(status, ropewalk::detail::format("launch of {} blocks of {} threads for {}", shape.grid, shape.block,
                                                    ropewalk::detail::shape_of("heads", about)));
}

/// The number of this thread in its launch.
__device__ inline std::int64_t launch_index() { return std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; }

}  // namespace detail

}  // namespace ropewalk::gpu
