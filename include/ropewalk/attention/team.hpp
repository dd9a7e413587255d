// How many threads a kernel takes.
#pragma once

#include <cstdint>

#include "ropewalk/core/config.hpp"

#if defined(RW_OPENMP)
#include <omp.h>
#endif

namespace ropewalk::attention::detail {

/// Threads for work in `parts` that each pay for waking a thread; 1 inside somebody's parallel region.
template <class A>
RW_INLINE int team_for(std::int64_t parts, int asked) {
#if defined(RW_OPENMP)
    if (parts <= 1 || omp_in_parallel() != 0) return 1;
    const std::int64_t most = asked > 0 ? asked : omp_get_max_threads();
    return static_cast<int>(parts < most ? parts : most);
#else
    (void)parts, (void)asked;
    return 1;
#endif
}

template <class A>
RW_INLINE int thread_number() {
#if defined(RW_OPENMP)
    return omp_get_thread_num();
#else
    return 0;
#endif
}

}  // namespace ropewalk::attention::detail
