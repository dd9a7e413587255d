// The families of rows, each registered by its own file.
#pragma once

#include <string>

#include "workload.hpp"

namespace bench {

void register_rotations();  ///< rotate/, rotate_bhsd/, out_of_place/, decode/
void register_tables();     ///< table/

/// A counter which the reporter shows as the time of the row: the median of the samples, seconds.
inline constexpr const char* median_seconds = "median_seconds";

}  // namespace bench
