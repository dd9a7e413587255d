// Division that splits an index into coordinates.
#pragma once

#include <cstdint>

#include "ropewalk/core/compiler.hpp"

namespace ropewalk::detail {

struct quotient {
    std::int64_t whole, rest;
};

/// n / d for n ≥ 0. Most values fit 32 bits, where a division takes a fifth of the time.
RW_HD RW_INLINE quotient divide(std::int64_t n, std::int64_t d) {
    if (((n | d) >> 32) == 0) {
        const auto small_n = static_cast<std::uint32_t>(n), small_d = static_cast<std::uint32_t>(d);
        return {small_n / small_d, small_n % small_d};
    }
    return {n / d, n % d};
}

}  // namespace ropewalk::detail
