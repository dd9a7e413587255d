// Number of threads of a call.
#pragma once

#include <cstdint>

#include "ropewalk/core/compiler.hpp"

#if defined(RW_OPENMP)
#include <omp.h>

#include <atomic>
#if defined(RW_FORKS)
#include <pthread.h>
#endif
#endif

namespace ropewalk::cpu::detail {

#if defined(RW_OPENMP)

/// State of a forked child whose parent ran threads. The threads of GCC's OpenMP do not survive a fork,
/// and the child would wait for them forever. `A` keeps the copies of different instruction sets apart.
template <class A>
class parent_threads {
public:
    static bool lost() { return lost_.load(std::memory_order_relaxed); }

    /// Call before threads start, so that children know.
    static void record() {
#if defined(RW_FORKS)
        static const int registered = pthread_atfork(nullptr, nullptr, [] { lost_.store(true); });
        (void)registered;
#endif
    }

private:
    inline static std::atomic<bool> lost_{false};
};

#endif

/// Threads for `parts` parts of work, each of which pays for waking a thread, and at most `limit` (0: the default of
/// OpenMP). Returns 1 inside a parallel region, and in a child forked after a threaded call.
template <class A>
RW_INLINE int thread_count(std::int64_t parts, int limit) {
#if defined(RW_OPENMP)
    if (parts <= 1 || omp_in_parallel() != 0 || parent_threads<A>::lost()) return 1;
    const std::int64_t available = limit > 0 ? limit : omp_get_max_threads();
    if (available <= 1) return 1;
    parent_threads<A>::record();
    return static_cast<int>(parts < available ? parts : available);
#else
    (void)parts, (void)limit;
    return 1;
#endif
}

}  // namespace ropewalk::cpu::detail
