// Registration of the benchmark rows, one function per source file.
#pragma once

#include "workload.hpp"

namespace bench {

void register_rotations();  ///< rotate/, rotate_bhsd/, out_of_place/, decode/
void register_tables();     ///< table/

/// A counter that the reporter prints as the time of the row: the median of the samples in seconds.
inline constexpr const char* median_seconds = "median_seconds";

}  // namespace bench
