// Execution of a kernel on one thread or on several.
#pragma once

#include <algorithm>
#include <memory>
#include <new>

#include "ropewalk/cpu/choose_loop.hpp"
#include "ropewalk/cpu/threads.hpp"

namespace ropewalk::cpu {

namespace detail {

/// Floats that begin at a cache line: an unaligned 512-bit register would lie in two.
struct aligned_release {
    void operator()(float* data) const { ::operator delete[](data, std::align_val_t{64}); }
};
using aligned_floats = std::unique_ptr<float[], aligned_release>;
inline aligned_floats make_aligned_floats(std::int64_t count) {
    const auto bytes = static_cast<std::size_t>(count) * sizeof(float);
    return aligned_floats(static_cast<float*>(::operator new[](bytes, std::align_val_t{64})));
}

/// Scratch of one thread, on the stack where it fits.
class stack_scratch {
public:
    explicit stack_scratch(std::int64_t floats) {
        if (floats > static_cast<std::int64_t>(sizeof stack_ / sizeof stack_[0])) heap_ = make_aligned_floats(floats);
    }
    float* data() { return heap_ ? heap_.get() : stack_; }

private:
    alignas(64) float stack_[4096];
    aligned_floats heap_;
};

}  // namespace detail

/// Runs the kernel over all tokens, on at most `max_threads` threads (0: the default of OpenMP). One token is never
/// shared.
inline void execute(const rotate_params& params, kernel_function kernel, int max_threads) {
    const std::int64_t tokens = params.batch() * params.tokens();
    if (tokens == 0) return;
    const std::int64_t floats = scratch_floats(params);
    const std::int64_t useful = std::min(tokens, detail::bytes_of(params) / tuning::bytes_per_thread);
    const int threads = detail::thread_count<rotate_params>(useful, max_threads);
    if (threads == 1) {
        detail::stack_scratch scratch(floats);
        kernel(params, 0, tokens, scratch.data());
        return;
    }
#if defined(RW_OPENMP)
    // Allocates before the threads start: they must not throw.
    const detail::aligned_floats scratch = detail::make_aligned_floats(floats * threads);
    float* const buffers = scratch.get();
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int thread = 0; thread < threads; ++thread) {
        kernel(params, tokens * thread / threads, tokens * (thread + 1) / threads, buffers + floats * thread);
    }
#endif
}

}  // namespace ropewalk::cpu
