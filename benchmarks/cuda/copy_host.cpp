// The copy kernel in place of a device.
#include <cstring>

#include "copy.hpp"

namespace bench {

void copy_by_kernel(device::stream_handle /*on*/, void* to, const void* from, std::size_t bytes) {
    std::memcpy(to, from, bytes);
}

}  // namespace bench
