// Registration of the benchmark rows.
#pragma once

#include "workload.hpp"

namespace bench {

void register_rows();    ///< all rows of the program: bench_rotate or bench_decode
void register_tables();  ///< table/

/// A counter that the reporter prints as the time of the row: the median of the samples in seconds.
inline constexpr const char* median_seconds = "median_seconds";

}  // namespace bench
