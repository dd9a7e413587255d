/// @file  The oracle's frequency schemes for longer contexts, from their published definitions, in numbers of 106 bits.
/// Includes nothing of the library.
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

/// The base b' = b·α^(d/(d−2)) in place of b (NTK-aware scaling). A width of 2 has one pair, which no base changes.
inline std::vector<dd> ntk(double base, std::int64_t width, dd alpha) {
    if (width == 2) return {dd{1}};
    const dd log_base = log(dd{base}) + log(alpha) * from_integer(width) / from_integer(width - 2);
    std::vector<dd> theta;
    for (std::int64_t j = 0; j < width / 2; ++j)
        theta.push_back(exp(-(log_base * from_integer(2 * j) / from_integer(width))));
    return theta;
}
/// The same where other schemes came before: what the new base does to each pair.
inline std::vector<dd> ntk(std::vector<dd> theta, double base, dd alpha) {
    const auto width = static_cast<std::int64_t>(2 * theta.size());
    const std::vector<dd> before = plain(base, width), after = ntk(base, width, alpha);
    for (std::size_t j = 0; j < theta.size(); ++j) theta[j] = theta[j] * after[j] / before[j];
    return theta;
}
/// α of dynamic NTK: s·n/L − (s − 1), n = max(length, L).
inline dd dynamic_alpha(double s, std::int64_t original, std::int64_t length) {
    const std::int64_t n = length > original ? length : original;
    return dd{s} * from_integer(n) / from_integer(original) - (dd{s} - dd{1});
}

/// YaRN (arXiv 2309.00071, §3.2) as Transformers has it.
struct ramp {
    double factor = 1;
    std::int64_t original = 4096;
    double fast = 32, slow = 1;
    bool truncate = true;
};

/// The pair that turns `turns` times within the original length: d·ln(L/2πβ)/(2 ln b).
inline dd pair_that_turns(double turns, std::int64_t original, double base, std::int64_t width) {
    return from_integer(width) * log(from_integer(original) / (two_pi * dd{turns})) / (dd{2} * log(dd{base}));
}
inline std::vector<dd> yarn(std::vector<dd> theta, double base, const ramp& r) {
    const auto width = static_cast<std::int64_t>(2 * theta.size());
    dd low = pair_that_turns(r.fast, r.original, base, width), high = pair_that_turns(r.slow, r.original, base, width);
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

/// Llama 3.1's: by wavelength λ = 2π/θ against L/low and L/high.
struct bands {
    double factor = 8, low = 1, high = 4;
    std::int64_t original = 8192;
};
inline std::vector<dd> llama3(std::vector<dd> theta, const bands& b) {
    const dd length = from_integer(b.original);
    for (dd& one : theta) {
        if (one.hi == 0) continue;
        const dd wave = two_pi / one, scaled_down = one / dd{b.factor};
        if (length / dd{b.low} < wave) {
            one = scaled_down;
        } else if (!(wave < length / dd{b.high})) {
            const dd t = (length / wave - dd{b.low}) / (dd{b.high} - dd{b.low});
            one = (dd{1} - t) * scaled_down + t * one;
        }
    }
    return theta;
}

/// LongRoPE's lists: θ_j / ext_j.
inline std::vector<dd> divided(std::vector<dd> theta, const std::vector<double>& ext) {
    for (std::size_t j = 0; j < theta.size(); ++j) theta[j] = theta[j] / dd{ext[j]};
    return theta;
}
/// The first `turning` pairs, divided by s; the others stand still.
inline std::vector<dd> proportional(std::vector<dd> theta, std::size_t turning, double s) {
    for (std::size_t j = 0; j < theta.size(); ++j) theta[j] = j < turning ? theta[j] / dd{s} : dd{};
    return theta;
}

/// DeepSeek's m(s, a) = 1 + 0.1·a·ln s, 1 for s ≤ 1.
inline double mscale(double s, double a) { return s <= 1 ? 1 : 1 + 0.1 * a * std::log(s); }

}  // namespace oracle
