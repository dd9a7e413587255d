// Equal parts of a range on a team of threads, as the kernels divide their tokens.
#pragma once

#include <cstdint>

namespace bench {

template <class F>
void in_parts(int threads, std::int64_t count, const F& run) {
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
