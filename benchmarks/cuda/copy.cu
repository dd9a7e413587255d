#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "copy.hpp"

namespace bench {

namespace {

constexpr int threads_per_block = 256, vecs_per_thread = 4;

/// Four loads in flight per thread; a warp reads runs of 512 bytes.
__global__ void copy_kernel(const uint4* from, uint4* to, std::size_t count) {
    const std::size_t first = std::size_t{blockIdx.x} * (threads_per_block * vecs_per_thread) + threadIdx.x;
    uint4 vecs[vecs_per_thread];
#pragma unroll
    for (int i = 0; i < vecs_per_thread; ++i)
        if (first + i * threads_per_block < count) vecs[i] = from[first + i * threads_per_block];
#pragma unroll
    for (int i = 0; i < vecs_per_thread; ++i)
        if (first + i * threads_per_block < count) to[first + i * threads_per_block] = vecs[i];
}

}  // namespace

void copy_by_kernel(device::stream_handle on, void* to, const void* from, std::size_t bytes) {
    const std::size_t count = bytes / sizeof(uint4), per_block = threads_per_block * vecs_per_thread;
    if (count == 0) return;
    copy_kernel<<<static_cast<unsigned>((count + per_block - 1) / per_block), threads_per_block, 0, on>>>(
        static_cast<const uint4*>(from), static_cast<uint4*>(to), count);
    const cudaError_t status = cudaGetLastError();
    if (status != cudaSuccess) throw std::runtime_error(std::string("copy kernel: ") + cudaGetErrorString(status));
}

}  // namespace bench
