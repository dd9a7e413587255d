// Builtins of every compiler that we know, where the standard library's functions may not be called on a GPU.
#pragma once

#include "ropewalk/core/config.hpp"

namespace ropewalk::detail {

/// std::bit_cast for host and device.
template <class To, class From>
RW_HD RW_INLINE constexpr To bit_cast(const From& value) {
    return __builtin_bit_cast(To, value);
}

/// std::is_constant_evaluated for host and device.
RW_HD RW_INLINE constexpr bool is_constant_evaluated() { return __builtin_is_constant_evaluated(); }

}  // namespace ropewalk::detail
