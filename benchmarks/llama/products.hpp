// Ceilings of matrix products: Eigen's GEMM and a read of all weights.
#pragma once

#include <cstdint>
#include <string_view>

namespace bench {

/// Functions of one instruction set. They use `threads` threads.
struct products {
    std::string_view name;
    /// Eigen's y = x · wᵀ of f32: x [tokens, columns], w [rows, columns].
    void (*gemm)(const float* x, std::int64_t tokens, const float* w, std::int64_t rows, std::int64_t columns, float* y,
                 int threads);
    /// Sums all words: the fastest single read of memory.
    std::uint32_t (*stream)(const std::uint32_t* data, std::int64_t count, int threads);
};

/// The functions for one of the names that dispatch::instruction_set() returns.
const products& products_for(std::string_view instruction_set);

}  // namespace bench
