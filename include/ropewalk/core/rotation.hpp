// Rotation of one pair, for a float and for a SIMD register.
#pragma once

#include "ropewalk/core/compiler.hpp"
#include "ropewalk/core/lanes.hpp"

namespace ropewalk {

/// A rotated pair.
template <class F>
struct rotated {
    F first;
    F second;
};

/// Rotates one element of a pair: own·c + partner·s. The first element of a pair takes the negated sine. The result has
/// the rounding of rotate_pair().
template <class F>
RW_HD RW_INLINE constexpr F rotate_one(F own, F partner, F c, F s) {
    return detail::lanes<F>::multiply_add(own, c, partner * s);
}

/// Rotates (x, y) by the angle of (c, s) and scales it by their length: (x·c − y·s, y·c + x·s).
template <class F>
RW_HD RW_INLINE constexpr rotated<F> rotate_pair(F x, F y, F c, F s) {
    return {detail::lanes<F>::multiply_subtract(x, c, y * s), rotate_one(y, x, c, s)};
}

}  // namespace ropewalk
