// Maximum of errors that treats NaN as infinity, for the checks before a measurement.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

namespace bench {

/// The larger of two errors. std::max would ignore NaN.
inline double max_error(double a, double b) {
    return std::isnan(a) || std::isnan(b) ? std::numeric_limits<double>::infinity() : std::max(a, b);
}

}  // namespace bench
