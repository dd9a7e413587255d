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
    RW_INLINE void operator()(float* data) const { ::operator delete[](data, std::align_val_t{64}); }
};
using aligned_floats = std::unique_ptr<float[], aligned_release>;
RW_INLINE aligned_floats make_aligned_floats(std::int64_t count) {
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

inline namespace RW_ISA {

/// Runs task(begin, end, scratch) for all tokens, on at most the given threads and one per `bytes_per_thread` of
/// `bytes`. Each thread has `floats` floats of scratch. One token is never shared. Throws ropewalk::error, with nothing
/// run, where `given` is invalid. Always inlined: files with and without OpenMP must not share a copy.
template <class Task>
RW_INLINE void execute(std::int64_t tokens, std::int64_t bytes, std::int64_t bytes_per_thread, std::int64_t floats,
                       const threads& given, const Task& task) {
    detail::check_threads(given);
    if (tokens == 0) return;
    thread_pool pool = detail::pool_for(std::min(tokens, bytes / bytes_per_thread), given);
#if defined(RW_OPENMP)
    if (pool.size > 1 && given.pool.run == nullptr && detail::late_threads::expected()) pool.size = 1;
#endif
    if (pool.size == 1) {
        detail::stack_scratch scratch(floats);
        task(0, tokens, scratch.data());
        return;
    }
    // Allocates before the threads start: they must not throw.
    const detail::aligned_floats scratch = detail::make_aligned_floats(floats * pool.size);
    const auto part = [&, buffers = scratch.get(), count = pool.size](std::int64_t thread) {
        task(tokens * thread / count, tokens * (thread + 1) / count, buffers + floats * thread);
    };
    const auto run = [](void* argument, int index) { (*static_cast<decltype(part)*>(argument))(index); };
    pool.run(pool.pool, pool.size, run, const_cast<void*>(static_cast<const void*>(&part)));
}

/// Runs the kernel over all tokens.
RW_INLINE void execute(const rotate_params& params, kernel_function kernel, const threads& given) {
    execute(params.batch() * params.tokens(), detail::bytes_of(params), params.loop.bytes_per_thread,
            scratch_floats(params), given,
            [&](std::int64_t begin, std::int64_t end, float* scratch) { kernel(params, begin, end, scratch); });
}

}  // namespace RW_ISA
}  // namespace ropewalk::cpu
