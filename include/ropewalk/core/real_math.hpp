// Functions of a real: log2, exp2, pow, log, floor, min, max, clamp.
#pragma once

#include <array>

#include "ropewalk/core/real.hpp"

namespace ropewalk {

namespace detail {

/// 1/33, 1/31, ..., 1: the series of atanh, last term first.
inline constexpr auto odd_reciprocals = [] {
    std::array<real, 17> result{};
    for (int i = 0; i < 17; ++i) result[static_cast<std::size_t>(16 - i)] = real(1) / real(2 * i + 1);
    return result;
}();

/// 1/22!, 1/21!, ..., 1: the series of exp, last term first.
inline constexpr auto factorial_reciprocals = [] {
    std::array<real, 23> result{};
    real factorial(1);
    for (int k = 0; k < 23; ++k) {
        if (k > 0) factorial = factorial * real(k);
        result[static_cast<std::size_t>(22 - k)] = real(1) / factorial;
    }
    return result;
}();

}  // namespace detail

/// Returns the logarithm to base 2 of x > 0. Absolute error below 2^-62 · max(1, |log2 x|).
RW_NOINLINE constexpr real log2(const real& x) {
    // x = m · 2^e with m in [√½, √2): the series of 2·atanh((m − 1)/(m + 1)) then needs 17 terms.
    real m{false, x.mantissa(), -63};
    int e = x.exponent() + 63;
    if (m > real(1.41421356237309504880)) {
        m = m.scaled(-1);
        ++e;
    }
    const real z = (m - 1) / (m + 1), square = z * z;
    real sum;
    for (const real& term : detail::odd_reciprocals) sum = real::sum(real::product(sum, square), term);
    return real(e) + (z * sum).scaled(1) / ln_2;
}

/// Returns 2^x. Relative error below 2^-61 · max(1, |x|).
RW_NOINLINE constexpr real exp2(const real& x) {
    const double nearest = static_cast<double>(x);
    constexpr int out_of_range = 2 * real::largest_exponent;
    if (nearest >= out_of_range) return {false, 1, out_of_range};
    if (nearest <= -out_of_range) return {};
    const int whole = static_cast<int>(nearest < 0 ? nearest - 0.5 : nearest + 0.5);
    const real f = (x - real(whole)) * ln_2;
    real sum;
    for (const real& term : detail::factorial_reciprocals) sum = real::sum(real::product(sum, f), term);
    return sum.scaled(whole);
}

/// Returns base^exponent for base >= 0; 0^exponent is 0 and x^0 is 1.
RW_NOINLINE constexpr real pow(const real& base, const real& exponent) {
    if (exponent.is_zero()) return real(1);
    if (base.is_zero()) return {};
    return exp2(exponent * log2(base));
}

/// Returns the natural logarithm of x > 0.
constexpr real log(const real& x) { return log2(x) * ln_2; }

/// Returns the largest integer not above x.
RW_NOINLINE constexpr real floor(const real& x) {
    if (x.is_zero() || x.exponent() >= 0) return x;
    const std::uint64_t whole = x.exponent() > -64 ? x.mantissa() >> -x.exponent() : 0;
    const real towards_zero(x.negative(), whole, 0);
    return x.negative() && towards_zero != x ? towards_zero - real(1) : towards_zero;
}

constexpr real min(const real& a, const real& b) { return b < a ? b : a; }
constexpr real max(const real& a, const real& b) { return a < b ? b : a; }
constexpr real clamp(const real& x, const real& low, const real& high) { return min(max(x, low), high); }

}  // namespace ropewalk
