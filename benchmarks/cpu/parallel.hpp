// Parallel loop over equal parts of a range, divided like the tokens of the kernels.
#pragma once

#include <cstdint>

namespace bench {

/// Calls run(begin, count) once per thread.
template <class F>
void for_each_part(int threads, std::int64_t count, const F& run) {
    if (threads <= 1) return run(0, count);
#if defined(_OPENMP)
#pragma omp parallel for num_threads(threads) schedule(static, 1)
#endif
    for (int part = 0; part < threads; ++part) {
        const std::int64_t begin = count * part / threads;
        run(begin, count * (part + 1) / threads - begin);
    }
}

}  // namespace bench
