// y = x · wᵀ with weights of any element type.
#pragma once

#include "ropewalk/llama/linear_few.hpp"
#include "ropewalk/llama/linear_many.hpp"

namespace ropewalk::llama::cpu::detail {

/// Up to so many tokens the weights are streamed. Beyond, packing them pays: on a Zen 4 the stream is 1.9 times as fast
/// at 16 tokens (AVX2: 1.5), 1.6 (1.2) at 32, and the two are within a tenth of each other at 64.
template <class A>
inline constexpr std::int64_t most_few = 48;

template <class A, class T>
void linear_of(const float* x, std::int64_t tokens, const matrix& w, float* y, bool add, int threads) {
    const auto* const weights = static_cast<const T*>(w.data);
    if (tokens <= most_few<A>) {
        linear_few<A, T>({x, weights, y, w.rows, w.columns, add}, tokens, threads);
    } else {
        linear_many<A, T>({x, tokens, weights, y, w.rows, w.columns, add}, threads);
    }
}

/// kernel_table::linear. A result depends on neither the number of threads nor, while the tokens are few, on theirs.
template <class A>
void linear(const float* x, std::int64_t tokens, const matrix& w, float* y, bool add, int threads) {
    if (tokens == 0) return;
    switch (w.type) {
        case element_type::f32:
            return linear_of<A, float>(x, tokens, w, y, add, threads);
        case element_type::f16:
            return linear_of<A, f16>(x, tokens, w, y, add, threads);
        default:
            return linear_of<A, bf16>(x, tokens, w, y, add, threads);
    }
}

}  // namespace ropewalk::llama::cpu::detail
