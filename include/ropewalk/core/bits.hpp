// Builtins of every compiler that we know, where the standard library's functions may not be called on a GPU.
#pragma once

#include <cstdint>

#include "ropewalk/core/compiler.hpp"

namespace ropewalk::detail {

/// std::bit_cast for host and device.
template <class To, class From>
RW_HD RW_INLINE constexpr To bit_cast(const From& value) {
    return __builtin_bit_cast(To, value);
}

/// std::isfinite and std::isnan that ask for the bits, since -ffast-math takes it for granted that nothing is infinite
/// or NaN. By reference: it makes a NaN that is passed by value undefined.
RW_HD RW_INLINE constexpr bool is_finite(const double& value) {
    return (bit_cast<std::uint64_t>(value) & 0x7ff0000000000000U) != 0x7ff0000000000000U;
}
RW_HD RW_INLINE constexpr bool is_nan(const double& value) {
    return (bit_cast<std::uint64_t>(value) & 0x7fffffffffffffffU) > 0x7ff0000000000000U;
}

/// std::is_constant_evaluated for host and device.
RW_HD RW_INLINE constexpr bool is_constant_evaluated() { return __builtin_is_constant_evaluated(); }

}  // namespace ropewalk::detail
