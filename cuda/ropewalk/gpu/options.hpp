// Options of a call on a GPU.
#pragma once

#include "ropewalk/rotation/args.hpp"

/// The target of cudaStream_t, declared here so that this header needs no CUDA.
struct CUstream_st;

namespace ropewalk::gpu {

using ropewalk::direction;

/// Properties of a device that a launch plan depends on. The defaults are those of an H100.
struct device_shape {
    int multiprocessors = 132;
    int threads_per_multiprocessor = 2048;  ///< resident threads
    int heads_per_thread = 0;               ///< options::heads_per_thread
};

/// Options of a call. A call allocates nothing and does not wait for the device.
struct options {
    ropewalk::direction direction = ropewalk::direction::forward;
    CUstream_st* stream = nullptr;  ///< a cudaStream_t
    /// Device memory that replaces the phases of the encoding where it exists. The factors in it are unknown, so
    /// inverse equals adjoint. Indices outside the table are clamped to its first or last row.
    cos_sin_table table{};
    /// Queries the CUDA runtime about every pointer, so that host memory or memory of another device is an error
    /// instead of a fault. Disable it on systems whose devices read host memory.
    bool check_pointers = true;
    /// Starts before the end of the previous kernel of the stream, and waits for that end before the first access to
    /// memory (programmatic dependent launch). Ignored where the device or the code has a compute capability below 9.0.
    bool overlap_previous = false;
    /// At most this many heads per thread instead of the number that the launch plan chooses. For measurements; 0: off.
    int heads_per_thread = 0;
};

}  // namespace ropewalk::gpu
