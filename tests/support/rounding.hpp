/// @file  Oracle of rounding to f32, f16 and bf16, by frexp and ldexp. Shares no code with the library.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace oracle {

/// A binary floating-point format. encode() and decode() take those of at most 32 bits.
struct format {
    int bytes;
    int digits;      ///< of the significand, with the hidden one
    int least;       ///< exponent of the smallest subnormal number
    double largest;  ///< finite
};
inline constexpr format f32{4, 24, -149, 0x1.fffffep+127};
inline constexpr format f16{2, 11, -24, 65504.0};
inline constexpr format bf16{2, 8, -133, 0x1.fep+127};
inline constexpr format f64{8, 53, -1074, 0x1.fffffffffffffp+1023};

/// Returns the nearest number of the format, ties to even; infinity beyond its range.
inline double rounded(double value, const format& f) {
    if (value == 0 || !std::isfinite(value)) return value;
    int exponent = 0;
    std::frexp(value, &exponent);
    const int quantum = std::max(exponent - f.digits, f.least);
    const double result = std::ldexp(std::nearbyint(std::ldexp(value, -quantum)), quantum);
    if (std::fabs(result) > f.largest) return std::copysign(std::numeric_limits<double>::infinity(), value);
    return result;
}

/// Returns the bits of a number that the format represents exactly.
inline std::uint32_t encode(double value, const format& f) {
    const int fraction_bits = f.digits - 1, exponent_bits = 8 * f.bytes - f.digits;
    const std::uint32_t sign = std::signbit(value) ? 1U << (8 * f.bytes - 1) : 0U;
    const std::uint32_t all_exponent = ((1U << exponent_bits) - 1) << fraction_bits;
    if (std::isnan(value)) return sign | all_exponent | (1U << (fraction_bits - 1));
    if (std::isinf(value)) return sign | all_exponent;
    // Consecutive numbers have consecutive bits, so the bits are the number of steps from zero.
    const double magnitude = std::fabs(value);
    const double units = std::ldexp(magnitude, -f.least), binade = std::ldexp(1.0, fraction_bits);
    if (units < binade) return sign | static_cast<std::uint32_t>(units);
    const int doublings = std::ilogb(units) - fraction_bits;
    const double inside = std::ldexp(units, -doublings);
    return sign | ((static_cast<std::uint32_t>(doublings) << fraction_bits) + static_cast<std::uint32_t>(inside));
}

/// Returns the number of a bit pattern.
inline double decode(std::uint32_t bits, const format& f) {
    const int fraction_bits = f.digits - 1, exponent_bits = 8 * f.bytes - f.digits;
    const std::uint32_t fraction = bits & ((1U << fraction_bits) - 1);
    const std::uint32_t exponent = (bits >> fraction_bits) & ((1U << exponent_bits) - 1);
    const double sign = (bits >> (8 * f.bytes - 1)) != 0 ? -1.0 : 1.0;
    if (exponent == (1U << exponent_bits) - 1) {
        return fraction != 0 ? std::numeric_limits<double>::quiet_NaN()
                             : sign * std::numeric_limits<double>::infinity();
    }
    const std::uint32_t hidden = exponent == 0 ? 0U : 1U << fraction_bits;
    const int shift = exponent == 0 ? 0 : static_cast<int>(exponent) - 1;
    return sign * std::ldexp(static_cast<double>(fraction | hidden), f.least + shift);
}

/// Writes a number that the format represents exactly.
inline void store(double value, const format& f, void* to) {
    if (f.bytes == 8) {
        std::memcpy(to, &value, sizeof value);
    } else {
        const std::uint32_t bits = encode(value, f);
        std::memcpy(to, &bits, static_cast<std::size_t>(f.bytes));
    }
}

/// Reads a number of the format.
inline double load(const void* from, const format& f) {
    double value = 0;
    std::uint32_t bits = 0;
    std::memcpy(f.bytes == 8 ? static_cast<void*>(&value) : &bits, from, static_cast<std::size_t>(f.bytes));
    return f.bytes == 8 ? value : decode(bits, f);
}

}  // namespace oracle
