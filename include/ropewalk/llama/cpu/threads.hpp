// Threads of the kernels and their scratch memory. Every name carries the architecture A.
#pragma once

#include <cstdint>
#include <new>

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

/// Calls body(i) for i = 0 … count − 1 on `threads` threads, equal ranges each.
template <class A, class Body>
RW_INLINE void parallel_for(std::int64_t count, [[maybe_unused]] int threads, const Body& body) {
#if defined(RW_OPENMP)
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
#endif
    for (std::int64_t i = 0; i < count; ++i) body(i);
}

/// Uninitialised floats, a region per thread, each on its own cache lines. Throws std::bad_alloc, which must not leave
/// an OpenMP region: create it before.
template <class A>
class scratch {
public:
    scratch(std::int64_t floats, int regions)
        : stride_((floats + 15) / 16 * 16),
          data_(static_cast<float*>(
              ::operator new[](static_cast<std::size_t>(stride_) * static_cast<std::size_t>(regions) * sizeof(float),
                               std::align_val_t{64}))) {}
    ~scratch() { ::operator delete[](data_, std::align_val_t{64}); }
    scratch(const scratch&) = delete;
    scratch& operator=(const scratch&) = delete;

    [[nodiscard]] float* region(int thread) const { return data_ + stride_ * thread; }

private:
    std::int64_t stride_;
    float* data_;
};

}  // namespace ropewalk::llama::cpu::detail
