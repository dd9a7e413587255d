// What products with a matrix of weights are measured against.
#pragma once

#include <cstdint>
#include <string_view>

namespace bench {

/// Functions of one instruction set, on `threads` threads.
struct products {
    std::string_view name;
    /// Eigen's y = x · wᵀ of f32: x [tokens, columns], w [rows, columns].
    void (*gemm)(const float* x, std::int64_t tokens, const float* w, std::int64_t rows, std::int64_t columns, float* y,
                 int threads);
    /// The sum of all words: nothing reads memory once with less to do.
    std::uint32_t (*stream)(const std::uint32_t* data, std::int64_t count, int threads);
};

/// The functions for one of the names that dispatch::instruction_set() returns.
const products& products_for(std::string_view instruction_set);

}  // namespace bench
