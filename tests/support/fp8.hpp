/// @file  Oracle of OCP E4M3 and E5M2, from their definitions. Shares no code with the library.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace oracle {

/// A format of 8 bits: a sign, exponents in excess of `bias` and mantissas. Codes up to `largest` are numbers.
struct fp8 {
    int mantissa_bits, bias, largest;
    bool has_infinity;
};
inline constexpr fp8 e4m3{3, 7, 126, false}, e5m2{2, 15, 123, true};

/// Returns the number of a code without its sign: 2^(e − bias) · 1.m, or 2^(1 − bias) · 0.m if e is 0.
inline double fp8_number(const fp8& f, int code) {
    const int steps = 1 << f.mantissa_bits, exponent = code / steps, mantissa = code % steps;
    if (exponent == 0) return std::ldexp(mantissa, 1 - f.bias - f.mantissa_bits);
    return std::ldexp(steps + mantissa, exponent - f.bias - f.mantissa_bits);
}

/// Returns the code of the nearest number by exhaustive search; ties go to the even code, and numbers beyond the
/// largest saturate.
inline std::uint32_t fp8_code(const fp8& f, double value) {
    if (std::isnan(value)) return 0x7f;
    const double magnitude = std::min(std::fabs(value), fp8_number(f, f.largest));
    int best = 0;
    for (int code = 1; code <= f.largest; ++code) {
        const double least = std::fabs(fp8_number(f, best) - magnitude);
        const double error = std::fabs(fp8_number(f, code) - magnitude);
        if (error < least || (error == least && code % 2 == 0)) best = code;
    }
    return static_cast<std::uint32_t>(best) | (std::signbit(value) ? 0x80U : 0U);
}

}  // namespace oracle
