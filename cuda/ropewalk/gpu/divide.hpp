// The division that takes a launch index apart.
#pragma once

#include <cstdint>

#include "ropewalk/core/compiler.hpp"

namespace ropewalk::gpu::detail {

struct quotient {
    std::int64_t whole, rest;
};

/// n / d for n ≥ 0. Nearly all numbers fit into 32 bits, where a division costs a fifth.
RW_HD RW_INLINE quotient divide(std::int64_t n, std::int64_t d) {
    if (((n | d) >> 32) == 0) {
        const auto small = static_cast<std::uint32_t>(n), by = static_cast<std::uint32_t>(d);
        return {small / by, small % by};
    }
    return {n / d, n % d};
}

}  // namespace ropewalk::gpu::detail
