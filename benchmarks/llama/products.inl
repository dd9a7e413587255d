// Ceilings of products for one architecture A. Only products_*.cpp include this file; there Eigen's namespace has the
// name of the instruction set, as in bindings/dispatch/llama.
#pragma once

#include <Eigen/Core>

#include <ropewalk/cpu/simd/simd.hpp>

#include "products.hpp"

namespace bench {

template <class A>
void gemm(const float* x, std::int64_t tokens, const float* w, std::int64_t rows, std::int64_t columns, float* y,
          int threads) {
    using dense = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    Eigen::setNbThreads(threads);
    Eigen::Map<dense>(y, tokens, rows).noalias() =
        Eigen::Map<const dense>(x, tokens, columns) * Eigen::Map<const dense>(w, rows, columns).transpose();
}

template <class A>
std::uint32_t sum_of_words(const std::uint32_t* data, std::int64_t count) {
    using words = xsimd::batch<std::uint32_t, A>;
    constexpr auto lanes = static_cast<std::int64_t>(words::size);
    words sums[4] = {words(0U), words(0U), words(0U), words(0U)};
    std::int64_t i = 0;
    for (; i + 4 * lanes <= count; i += 4 * lanes) {
        RW_UNROLL
        for (int k = 0; k < 4; ++k) sums[k] = sums[k] + words::load_unaligned(data + i + k * lanes);
    }
    std::uint32_t parts[lanes], sum = 0;
    ((sums[0] + sums[1]) + (sums[2] + sums[3])).store_unaligned(parts);
    for (std::int64_t k = 0; k < lanes; ++k) sum += parts[k];
    for (; i < count; ++i) sum += data[i];
    return sum;
}

template <class A>
std::uint32_t stream(const std::uint32_t* data, std::int64_t count, int threads) {
    std::uint32_t sum = 0;
#if defined(RW_OPENMP)
#pragma omp parallel for num_threads(threads) schedule(static, 1) reduction(+ : sum)
#endif
    for (int part = 0; part < threads; ++part) {
        const std::int64_t begin = count * part / threads;
        sum += sum_of_words<A>(data + begin, count * (part + 1) / threads - begin);
    }
    return sum;
}

template <class A>
constexpr products products_of(std::string_view name) {
    return {name, gemm<A>, stream<A>};
}

}  // namespace bench
