/// @file  Elements at the ends of every format, and their comparison with exact values.
#pragma once

#include <cmath>
#include <limits>
#include <vector>

#include "support/compare.hpp"

namespace test {

/// Heads of every kind in turn, each of `head_dim` elements: large and small numbers, a NaN among them, infinities
/// among them, and only numbers below the normal range of f32.
inline std::vector<double> special_heads(std::int64_t head_dim) {
    // Limits of e4m3 (448) and e5m2 (57344) with their halves for a scale of 0.5, ties to them, and limits of f16.
    constexpr double large[] = {224, 232, 240,   -448,  449,   464,  480,  -28672, 30720,
                                1,   -3,  57344, 61440, 65504, -7e4, 1e30, -1e30,  0.1};
    constexpr double small[] = {0x1p-9,   0x1p-10, -0x1.8p-10, 0x1p-16,  0x1p-17,  -0x1p-24, 0x1p-25,
                                0x1p-126, 1e-40,   -1e-40,     0x1p-133, 0x1p-149, 0,        -0.0};
    constexpr double infinity = std::numeric_limits<double>::infinity();
    std::vector<double> all;
    const auto element = [](const auto& values, std::int64_t i) { return values[i % std::ssize(values)]; };
    for (std::int64_t i = 0; i < head_dim; ++i)
        all.push_back(i % 2 == 0 ? element(large, i / 2) : element(small, i / 2));
    for (std::int64_t i = 0; i < head_dim; ++i)
        all.push_back(i == 5 ? std::numeric_limits<double>::quiet_NaN() : element(small, i));
    for (std::int64_t i = 0; i < head_dim; ++i)
        all.push_back(i == 2 ? infinity : i == head_dim - 3 ? -infinity : element(large, i));
    for (std::int64_t i = 0; i < head_dim; ++i) all.push_back(i % 2 == 0 ? 1e-40 : -0x1p-149);
    return all;
}

/// As within(), but a NaN equals a NaN, and an infinity equals itself.
inline bool same_value(double got, double exact, double room, const oracle::format& f) {
    if (std::isfinite(exact)) return within(got, exact, room, f);
    return std::isnan(exact) ? std::isnan(got) : got == exact;
}

}  // namespace test
