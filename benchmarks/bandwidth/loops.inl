// Bandwidth loops of an xsimd architecture A. Each loops_<set>.cpp includes them, compiled for its instruction set.
#pragma once

#include <ropewalk/cpu/simd/load_store.hpp>

#include "loops.hpp"

namespace bench {

template <class A>
using floats = xsimd::batch<float, A>;

/// Calls vector(i) for i = 0, width, 2 · width …, unrolled by four, then scalar(i) for each remaining element.
template <class Vector, class Scalar>
RW_INLINE void for_each_register(std::int64_t count, std::int64_t width, const Vector& vector, const Scalar& scalar) {
    std::int64_t i = 0;
    for (; i + 4 * width <= count; i += 4 * width) {
        vector(i);
        vector(i + width);
        vector(i + 2 * width);
        vector(i + 3 * width);
    }
    for (; i < count; ++i) scalar(i);
}

template <class A>
void scale_into(const float* in, float* out, std::int64_t count, float factor) {
    const floats<A> a(factor);
    for_each_register(
        count, static_cast<std::int64_t>(floats<A>::size),
        [=](std::int64_t i) { (floats<A>::load_unaligned(in + i) * a).store_unaligned(out + i); },
        [=](std::int64_t i) { out[i] = in[i] * factor; });
}

template <class A>
void scale(float* data, std::int64_t count, float factor) {
    scale_into<A>(data, data, count, factor);
}

template <class A>
void convert_f16(ropewalk::f16* data, std::int64_t count, float factor) {
    namespace simd = ropewalk::cpu::detail;
    const floats<A> a(factor);
    for_each_register(
        count, static_cast<std::int64_t>(floats<A>::size),
        [=](std::int64_t i) { simd::store_elements<A>(data + i, simd::load_elements<A>(data + i) * a); },
        [=](std::int64_t i) { data[i] = ropewalk::f16(static_cast<float>(data[i]) * factor); });
}

template <class A>
void convert_bf16(ropewalk::bf16* data, std::int64_t count, float factor) {
    namespace simd = ropewalk::cpu::detail;
    const floats<A> a(factor);
    for_each_register(
        count, static_cast<std::int64_t>(2 * floats<A>::size),
        [=](std::int64_t i) {
            const auto both = simd::load_bf16<A>(data + i);
            simd::store_bf16<A>(data + i, both.even * a, both.odd * a);
        },
        [=](std::int64_t i) { data[i] = ropewalk::bf16(static_cast<float>(data[i]) * factor); });
}

template <class A>
void store(float* data, std::int64_t count, float value) {
    const floats<A> v(value);
    for_each_register(
        count, static_cast<std::int64_t>(floats<A>::size), [=](std::int64_t i) { v.store_unaligned(data + i); },
        [=](std::int64_t i) { data[i] = value; });
}

// No __restrict: the loops of engines have none. GCC vectorises them after a check that x does not overlap the table.

template <class A>
void rotate_half_split(float* x, std::int64_t heads, std::int64_t head_dim, const float* cos, const float* sin) {
    for (const float* const end = x + heads * head_dim; x != end; x += head_dim) {
        for (std::int64_t j = 0; j < head_dim / 2; ++j) {
            const float a = x[j], b = x[j + head_dim / 2];
            x[j] = a * cos[j] - b * sin[j];
            x[j + head_dim / 2] = a * sin[j] + b * cos[j];
        }
    }
}

template <class A>
void rotate_interleaved(float* x, std::int64_t heads, std::int64_t head_dim, const float* cos, const float* sin) {
    for (const float* const end = x + heads * head_dim; x != end; x += head_dim) {
        for (std::int64_t j = 0; j < head_dim / 2; ++j) {
            const float a = x[2 * j], b = x[2 * j + 1];
            x[2 * j] = a * cos[j] - b * sin[j];
            x[2 * j + 1] = a * sin[j] + b * cos[j];
        }
    }
}

template <class A>
constexpr bandwidth_loops loops_of(std::string_view instruction_set) {
    return {.instruction_set = instruction_set,
            .scale = scale<A>,
            .scale_into = scale_into<A>,
            .convert_f16 = convert_f16<A>,
            .convert_bf16 = convert_bf16<A>,
            .store = store<A>,
            .rotate_half_split = rotate_half_split<A>,
            .rotate_interleaved = rotate_interleaved<A>};
}

}  // namespace bench
