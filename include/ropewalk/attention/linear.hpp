// y = x · wᵀ with weights of any element type.
#pragma once

#include "ropewalk/attention/linear_few.hpp"
#include "ropewalk/attention/linear_many.hpp"

namespace ropewalk::attention::detail {

/// Up to so many tokens the weights are streamed. Beyond, packing them pays: on a Zen 4 with AVX-512 or AVX2 the two
/// meet between 48 and 64 tokens, and at 16 the stream is twice as fast.
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

}  // namespace ropewalk::attention::detail
