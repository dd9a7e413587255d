// What a call on a GPU may choose beside its tensors.
#pragma once

#include "ropewalk/rotation/args.hpp"

/// What cudaStream_t points to, so that this header needs no CUDA.
struct CUstream_st;

namespace ropewalk::gpu {

using ropewalk::direction;

/// What a launch plan must know of a device. The defaults are those of an H100.
struct device_shape {
    int multiprocessors = 132;
    int threads_each = 2048;  ///< resident threads of a multiprocessor
};

/// How a call runs. Nothing is allocated and nothing waits for the device.
struct options {
    ropewalk::direction direction = ropewalk::direction::forward;
    CUstream_st* stream = nullptr;  ///< a cudaStream_t
    /// Read instead of the encoding's phases where it exists, from device memory. Its factors are not known, so inverse
    /// is adjoint then. A row outside the table is taken to be its nearest one.
    cos_sin_table table{};
    /// Ask the runtime about every pointer, so that host memory or another device's is an error and not a fault.
    /// Systems whose devices read all of the host's memory want it off.
    bool check_pointers = true;
    /// Start while the kernel before it on the stream ends (programmatic dependent launch). Ignored where device or
    /// code are of a compute capability below 9.0.
    bool overlap_previous = false;
};

}  // namespace ropewalk::gpu
