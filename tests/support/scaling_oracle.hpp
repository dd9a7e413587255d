/// @file  Oracle of the scaling methods for longer contexts: their published definitions in 106-bit numbers. Includes
/// nothing of the library.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "support/double_double.hpp"
#include "support/oracle.hpp"

namespace oracle {

inline dd floor(dd x) {
    const double whole = std::floor(x.hi);
    if (whole < x.hi) return dd{whole};
    return two_sum(whole, std::floor(x.lo));
}
inline dd ceil(dd x) { return -floor(-x); }
inline dd clamp(dd x, dd low, dd high) { return x < low ? low : high < x ? high : x; }

/// Frequencies for the base b·α^(d/(d−2)) (NTK-aware scaling). A width of 2 has a single pair, independent of the base.
inline std::vector<dd> ntk(double base, std::int64_t width, dd alpha) {
    if (width == 2) return {dd{1}};
    const dd log_base = log(dd{base}) + log(alpha) * from_integer(width) / from_integer(width - 2);
    std::vector<dd> theta;
    for (std::int64_t j = 0; j < width / 2; ++j)
        theta.push_back(exp(-(log_base * from_integer(2 * j) / from_integer(width))));
    return theta;
}
/// The same on scaled frequencies: the ratio that the new base gives each pair.
inline std::vector<dd> ntk(std::vector<dd> theta, double base, dd alpha) {
    const auto width = static_cast<std::int64_t>(2 * theta.size());
    const std::vector<dd> before = plain(base, width), after = ntk(base, width, alpha);
    for (std::size_t j = 0; j < theta.size(); ++j) theta[j] = theta[j] * after[j] / before[j];
    return theta;
}
/// Returns α of dynamic NTK: s·n/L − (s − 1), n = max(length, L).
inline dd dynamic_alpha(double s, std::int64_t original, std::int64_t length) {
    const std::int64_t n = length > original ? length : original;
    return dd{s} * from_integer(n) / from_integer(original) - (dd{s} - dd{1});
}

/// Parameters of YaRN (arXiv 2309.00071, §3.2) as in Transformers.
struct ramp {
    double factor = 1;
    std::int64_t original = 4096;
    double fast = 32, slow = 1;
    bool truncate = true;
};

/// Returns the fractional pair with `rotations` rotations within the original length: d·ln(L/2πβ)/(2 ln b).
inline dd pair_with_rotations(double rotations, std::int64_t original, double base, std::int64_t width) {
    return from_integer(width) * log(from_integer(original) / (two_pi * dd{rotations})) / (dd{2} * log(dd{base}));
}
inline std::vector<dd> yarn(std::vector<dd> theta, double base, const ramp& r) {
    const auto width = static_cast<std::int64_t>(2 * theta.size());
    dd low = pair_with_rotations(r.fast, r.original, base, width),
       high = pair_with_rotations(r.slow, r.original, base, width);
    if (r.truncate) low = floor(low), high = ceil(high);
    if (low < dd{0}) low = dd{0};
    if (from_integer(width - 1) < high) high = from_integer(width - 1);
    if (!(low < high) && !(high < low)) high = high + dd{0.001};
    for (std::size_t j = 0; j < theta.size(); ++j) {
        const dd part = clamp((dd{static_cast<double>(j)} - low) / (high - low), dd{0}, dd{1});
        theta[j] = theta[j] / dd{r.factor} * part + theta[j] * (dd{1} - part);
    }
    return theta;
}

/// Parameters of Llama 3.1: wavelengths λ = 2π/θ are compared with L/low and L/high.
struct bands {
    double factor = 8, low = 1, high = 4;
    std::int64_t original = 8192;
};
inline std::vector<dd> llama3(std::vector<dd> theta, const bands& b) {
    const dd length = from_integer(b.original);
    for (dd& frequency : theta) {
        if (frequency.hi == 0) continue;
        const dd wave = two_pi / frequency, scaled_down = frequency / dd{b.factor};
        if (length / dd{b.low} < wave) {
            frequency = scaled_down;
        } else if (!(wave < length / dd{b.high})) {
            const dd t = (length / wave - dd{b.low}) / (dd{b.high} - dd{b.low});
            frequency = (dd{1} - t) * scaled_down + t * frequency;
        }
    }
    return theta;
}

/// θ_j / factor_j (LongRoPE).
inline std::vector<dd> divided(std::vector<dd> theta, const std::vector<double>& factors) {
    for (std::size_t j = 0; j < theta.size(); ++j) theta[j] = theta[j] / dd{factors[j]};
    return theta;
}
/// θ_j / s for the first `rotating` pairs, 0 for the others.
inline std::vector<dd> proportional(std::vector<dd> theta, std::size_t rotating, double s) {
    for (std::size_t j = 0; j < theta.size(); ++j) theta[j] = j < rotating ? theta[j] / dd{s} : dd{};
    return theta;
}

/// DeepSeek's m(s, a) = 1 + 0.1·a·ln s, 1 for s ≤ 1.
inline double mscale(double s, double a) { return s <= 1 ? 1 : 1 + 0.1 * a * std::log(s); }

}  // namespace oracle
