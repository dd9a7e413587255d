/// @file  Largest error of a frequency policy over random heads, against the oracle.
#pragma once

#include <algorithm>

#include "support/effort.hpp"
#include "support/encodings.hpp"

namespace test {

/// Returns the largest relative error over `count` random heads. `draw(geometry)` returns a random policy and the exact
/// frequencies; it may change the geometry.
template <class Draw>
double worst_random_error(random& numbers, std::int64_t count, const Draw& draw) {
    double worst = 0;
    for (std::int64_t i = 0; i < cases(count); ++i) {
        ropewalk::Geometry geometry{.head_dim = 2 * numbers.integer(1, 256), .base = random_base(numbers)};
        const auto [policy, exact] = draw(geometry);
        worst = std::max(worst, worst_frequency_error(policy, geometry, exact));
    }
    UNSCOPED_INFO("worst relative error " << worst);
    return worst;
}

/// Returns the exact frequencies of plain RoPE.
inline std::vector<oracle::dd> plain(const ropewalk::Geometry& geometry) {
    return oracle::plain(geometry.base, geometry.width());
}

}  // namespace test
