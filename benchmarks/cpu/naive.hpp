// Naive rotation: the angle in double, std::cos and std::sin once per pair and token, and a plain loop over the heads,
// compiled with the options of the project.
#pragma once

#include <cmath>

#include "workload.hpp"

namespace bench {

template <class T>
void rotate_naively(const rw::tensor& tensor, rw::layout_kind layout, std::int64_t token, const float* cos,
                    const float* sin) {
    const std::int64_t half = head_dim / 2;
    for (std::int64_t head = 0; head < tensor.heads; ++head) {
        T* x = static_cast<T*>(tensor.data) + token * tensor.stride_token + head * tensor.stride_head;
        for (std::int64_t j = 0; j < half; ++j) {
            T& first = layout == rw::layout_kind::half_split ? x[j] : x[2 * j];
            T& second = layout == rw::layout_kind::half_split ? x[j + half] : x[2 * j + 1];
            const auto a = static_cast<float>(first), b = static_cast<float>(second);
            first = T(a * cos[j] - b * sin[j]);
            second = T(a * sin[j] + b * cos[j]);
        }
    }
}

template <class T>
void rotate_naively(const workload& tensors, std::int64_t first) {
    const int threads = tensors.size.threads;
    (void)threads;  // without OpenMP
    double inv_freq[head_dim / 2];
    for (int j = 0; j < head_dim / 2; ++j) inv_freq[j] = std::pow(base, -2.0 * j / head_dim);
#if defined(_OPENMP)
#pragma omp parallel for num_threads(threads) if (threads > 1)
#endif
    for (std::int64_t token = 0; token < tensors.size.tokens; ++token) {
        float cos[head_dim / 2], sin[head_dim / 2];
        for (int j = 0; j < head_dim / 2; ++j) {
            const double angle = static_cast<double>(first + token) * inv_freq[j];
            cos[j] = static_cast<float>(std::cos(angle));
            sin[j] = static_cast<float>(std::sin(angle));
        }
        rotate_naively<T>(tensors.q, tensors.size.layout, token, cos, sin);
        rotate_naively<T>(tensors.k, tensors.size.layout, token, cos, sin);
    }
}

inline void rotate_naively(const workload& tensors, std::int64_t first) {
    switch (tensors.size.type) {
        case rw::element_type::f32:
            return rotate_naively<float>(tensors, first);
        case rw::element_type::f16:
            return rotate_naively<rw::f16>(tensors, first);
        default:
            return rotate_naively<rw::bf16>(tensors, first);
    }
}

}  // namespace bench
