/// @file  Conversion of the library's real numbers to those of the oracle, and random reals.
#pragma once

#include <cmath>

#include <ropewalk/core/real.hpp>

#include "support/double_double.hpp"
#include "support/random.hpp"

namespace test {

/// Exact: 64 bits fit into two doubles.
inline oracle::dd to_dd(const ropewalk::real& x) {
    const double high = std::ldexp(static_cast<double>(x.mantissa() >> 32), x.exponent() + 32);
    const double low = std::ldexp(static_cast<double>(x.mantissa() & 0xffffffffU), x.exponent());
    const oracle::dd value = oracle::two_sum(high, low);
    return x.negative() ? -value : value;
}

inline double relative_error(const ropewalk::real& got, oracle::dd exact) {
    const double error = std::fabs(oracle::to_double(to_dd(got) - exact));
    return error == 0 ? 0 : error / std::fabs(exact.hi);
}

/// Returns 64 random bits with a random sign and a magnitude between 2^-span and 2^span.
inline ropewalk::real random_real(random& numbers, int span = 80) {
    const std::uint64_t mantissa = numbers.bits() | (std::uint64_t{1} << 63);
    return {numbers.coin(), mantissa, static_cast<int>(numbers.integer(-span, span)) - 64};
}

}  // namespace test
