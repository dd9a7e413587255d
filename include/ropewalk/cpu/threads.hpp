// How many threads a call takes.
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

/// GCC's OpenMP keeps its threads from one call to the next. A forked child has none of them, and would wait for them
/// for ever. `A` keeps apart what is compiled for each instruction set.
template <class A>
class threads_of_parent {
public:
    static bool are_gone() { return gone_.load(std::memory_order_relaxed); }

    /// Before threads start: children will know.
    static void remember() {
#if defined(RW_FORKS)
        static const int registered = pthread_atfork(nullptr, nullptr, [] { gone_.store(true); });
        (void)registered;
#endif
    }

private:
    inline static std::atomic<bool> gone_{false};
};

#endif

/// Threads for work in `parts` that each pay for waking a thread, `asked` at most (0: OpenMP's number). 1 inside
/// somebody's parallel region, and in a child forked after a call that took more.
template <class A>
RW_INLINE int thread_count(std::int64_t parts, int asked) {
#if defined(RW_OPENMP)
    if (parts <= 1 || omp_in_parallel() != 0 || threads_of_parent<A>::are_gone()) return 1;
    const std::int64_t most = asked > 0 ? asked : omp_get_max_threads();
    if (most <= 1) return 1;
    threads_of_parent<A>::remember();
    return static_cast<int>(parts < most ? parts : most);
#else
    (void)parts, (void)asked;
    return 1;
#endif
}

}  // namespace ropewalk::cpu::detail
