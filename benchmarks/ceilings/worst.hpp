// How checks before a measurement add errors up.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

namespace ceilings {

/// The larger of two errors. What is no number counts as infinity: std::max would pass it over.
inline double larger(double a, double b) {
    return std::isnan(a) || std::isnan(b) ? std::numeric_limits<double>::infinity() : std::max(a, b);
}

}  // namespace ceilings
