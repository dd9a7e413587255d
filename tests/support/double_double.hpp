/// @file  106-bit numbers as sums of two doubles, for the oracle. Shares no code with the library.
#pragma once

#include <cmath>
#include <cstdint>

namespace oracle {

struct dd {
    double hi = 0;
    double lo = 0;
};

inline dd two_sum(double a, double b) {
    const double sum = a + b, part = sum - a;
    return {sum, (a - (sum - part)) + (b - part)};
}
inline dd two_product(double a, double b) {
    const double product = a * b;
    return {product, std::fma(a, b, -product)};
}
inline dd from_integer(std::int64_t value) {
    const auto upper = static_cast<double>(value >> 32) * 0x1p32;
    return two_sum(upper, static_cast<double>(value & 0xffffffff));
}

inline dd operator-(dd a) { return {-a.hi, -a.lo}; }
inline dd operator+(dd a, dd b) {
    const dd high = two_sum(a.hi, b.hi), low = two_sum(a.lo, b.lo);
    const dd sum = two_sum(high.hi, high.lo + low.hi);
    return two_sum(sum.hi, sum.lo + low.lo);
}
inline dd operator-(dd a, dd b) { return a + (-b); }
inline dd operator*(dd a, dd b) {
    const dd product = two_product(a.hi, b.hi);
    return two_sum(product.hi, product.lo + (a.hi * b.lo + a.lo * b.hi));
}
inline dd operator/(dd a, dd b) {
    const double first = a.hi / b.hi;
    dd rest = a - b * dd{first};
    const double second = rest.hi / b.hi;
    rest = rest - b * dd{second};
    return two_sum(first, second) + dd{rest.hi / b.hi};
}
inline bool operator<(dd a, dd b) { return (a - b).hi < 0; }
inline double to_double(dd a) { return a.hi + a.lo; }
inline dd scaled(dd a, int exponent) { return {std::ldexp(a.hi, exponent), std::ldexp(a.lo, exponent)}; }

inline constexpr dd ln_2{0x1.62e42fefa39efp-1, 0x1.abc9e3b39803fp-56};
inline constexpr dd two_pi{0x1.921fb54442d18p+2, 0x1.1a62633145c07p-52};

/// Returns e^x: x = k·ln 2 + 512·r, with a Taylor series for e^r − 1 that is squared nine times.
inline dd exp(dd x) {
    const double k = std::nearbyint(x.hi / ln_2.hi);
    const dd r = scaled(x - dd{k} * ln_2, -9);
    dd sum;
    for (int n = 14; n >= 1; --n) sum = (dd{1} + sum) * r / dd{static_cast<double>(n)};
    for (int i = 0; i < 9; ++i) sum = sum + sum + sum * sum;
    return scaled(dd{1} + sum, static_cast<int>(k));
}
/// Returns ln x by Newton's method on e^y = x.
inline dd log(dd x) {
    dd y{std::log(x.hi)};
    for (int i = 0; i < 2; ++i) y = y + x * exp(-y) - dd{1};
    return y;
}
inline dd pow(dd base, dd exponent) { return exp(exponent * log(base)); }

}  // namespace oracle
