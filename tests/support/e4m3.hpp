/// @file  Oracle of OCP E4M3, from its definition. Shares no code with the library.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace oracle {

/// Returns the number of a code below 127: 2^(e−7) · 1.mmm, or 2^-6 · 0.mmm if e is 0.
inline double e4m3_number(int code) {
    const int exponent = code / 8, mantissa = code % 8;
    return exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
}

/// Returns the code of the nearest number by exhaustive search; ties go to the even code, and numbers beyond the
/// largest saturate.
inline std::uint32_t e4m3_code(double value) {
    if (std::isnan(value)) return 0x7f;
    const double magnitude = std::min(std::fabs(value), 448.0);
    int best = 0;
    for (int code = 1; code < 127; ++code) {
        const double least = std::fabs(e4m3_number(best) - magnitude);
        const double error = std::fabs(e4m3_number(code) - magnitude);
        if (error < least || (error == least && code % 2 == 0)) best = code;
    }
    return static_cast<std::uint32_t>(best) | (std::signbit(value) ? 0x80U : 0U);
}

}  // namespace oracle
