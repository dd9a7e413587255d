// Runs a plan on one thread or on many.
#pragma once

#include <memory>
#include <new>

#include "ropewalk/cpu/plan.hpp"
#include "ropewalk/cpu/threads.hpp"

namespace ropewalk::cpu {

namespace detail {

/// Threads that pay for a call: waking one costs more than turning 128 KiB, and one token is never shared.
inline int threads_for(const job& work, int asked) {
    const std::int64_t paying = bytes_of(work) / (128 * 1024), tokens = work.batch() * work.tokens();
    return thread_count<job>(paying < tokens ? paying : tokens, asked);
}

/// Floats that begin a cache line: a 512-bit register of an unaligned row would lie in two.
struct aligned_release {
    void operator()(float* data) const { ::operator delete[](data, std::align_val_t{64}); }
};
using aligned_floats = std::unique_ptr<float[], aligned_release>;
inline aligned_floats make_aligned_floats(std::int64_t count) {
    const auto bytes = static_cast<std::size_t>(count) * sizeof(float);
    return aligned_floats(static_cast<float*>(::operator new[](bytes, std::align_val_t{64})));
}

/// Floats of scratch a thread, on the stack where they fit.
class scratch {
public:
    explicit scratch(std::int64_t floats) {
        if (floats > static_cast<std::int64_t>(sizeof here_ / sizeof here_[0])) heap_ = make_aligned_floats(floats);
    }
    float* data() { return heap_ ? heap_.get() : here_; }

private:
    alignas(64) float here_[4096];
    aligned_floats heap_;
};

}  // namespace detail

/// Runs the kernel over all tokens of the plan.
inline void execute(const plan& prepared, range_function kernel, int threads) {
    const job& work = prepared.work;
    const std::int64_t tokens = work.batch() * work.tokens();
    if (tokens == 0) return;
    const int team = detail::threads_for(work, threads);
    const std::int64_t floats = scratch_floats(work);
    if (team == 1) {
        detail::scratch mine(floats);
        kernel(work, 0, tokens, mine.data());
        return;
    }
#if defined(RW_OPENMP)
    // Whatever may throw happens before the threads start.
    const detail::aligned_floats all = detail::make_aligned_floats(floats * team);
    float* const buffers = all.get();
#pragma omp parallel for num_threads(team) schedule(static, 1)
    for (int part = 0; part < team; ++part) {
        kernel(work, tokens * part / team, tokens * (part + 1) / team, buffers + floats * part);
    }
#endif
}

}  // namespace ropewalk::cpu
