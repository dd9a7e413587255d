// How many threads a kernel takes, and which of them runs.
#pragma once

#include "ropewalk/cpu/threads.hpp"

#if defined(RW_OPENMP)
#include <omp.h>
#endif

namespace ropewalk::llama::cpu::detail {

using ropewalk::cpu::detail::thread_count;

template <class A>
RW_INLINE int thread_number() {
#if defined(RW_OPENMP)
    return omp_get_thread_num();
#else
    return 0;
#endif
}

}  // namespace ropewalk::llama::cpu::detail
