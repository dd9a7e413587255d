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

/// Calls body(i) for i = 0 … count − 1, equal ranges per thread.
template <class A, class Body>
RW_INLINE void parallel_for(std::int64_t count, [[maybe_unused]] int threads, const Body& body) {
#if defined(RW_OPENMP)
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
#endif
    for (std::int64_t i = 0; i < count; ++i) body(i);
}

/// Calls body(thread, claim) on every thread. claim() returns the next index below `count`, or −1 after the last.
template <class A, class Body>
RW_INLINE void share_out(std::int64_t count, int threads, const Body& body) {
    std::int64_t next = 0;
    const auto claim = [&] {
        std::int64_t index;
#if defined(RW_OPENMP)
#pragma omp atomic capture
#endif
        index = next++;
        return index < count ? index : -1;
    };
    if (threads == 1) {
        body(0, claim);
        return;
    }
#if defined(RW_OPENMP)
#pragma omp parallel num_threads(threads)
    body(omp_get_thread_num(), claim);
#endif
}

/// Uninitialised floats, a region per thread on its own cache lines. Create it outside parallel regions, because
/// std::bad_alloc must not leave one.
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
