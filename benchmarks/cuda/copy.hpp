// A copy by a kernel of 16-byte accesses: the fastest that a kernel of this shape can move memory.
#pragma once

#include <cstddef>

#include "device.hpp"

namespace bench {

/// Copies device memory in the order of a stream. Addresses and `bytes` are multiples of 16.
void copy_by_kernel(device::stream_handle on, void* to, const void* from, std::size_t bytes);

}  // namespace bench
