// Memory that threads work in, of a type that carries the architecture.
#pragma once

#include <cstdint>
#include <new>

namespace ropewalk::llama::cpu::detail {

/// A region of floats for each of a number of threads; every region begins a cache line. Throws std::bad_alloc, so it
/// is made before an OpenMP region begins.
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
