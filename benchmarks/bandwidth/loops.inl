// Bandwidth loops of an xsimd architecture A. Each loops_<set>.cpp includes them, compiled for its instruction set.
#pragma once

#include <ropewalk/cpu/fused_heads.hpp>
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

template <class A, class T>
void norm_heads(T* x, std::int64_t count, std::int64_t head_dim, const float* weights, float epsilon) {
    namespace simd = ropewalk::cpu::detail;
    for (const T* const end = x + count * head_dim; x != end; x += head_dim) {
        const float mean = simd::sum_of_squares<A>(x, head_dim) / static_cast<float>(head_dim);
        const floats<A> factor(1.0F / std::sqrt(mean + epsilon));
        for (std::int64_t i = 0; i < head_dim; i += static_cast<std::int64_t>(floats<A>::size))
            simd::store_elements<A>(x + i,
                                    simd::load_elements<A>(x + i) * factor * floats<A>::load_unaligned(weights + i));
    }
}

template <class A>
void norm(ropewalk::element_type type, void* x, std::int64_t count, std::int64_t head_dim, const float* weights,
          float epsilon) {
    if (type == ropewalk::element_type::f32)
        return norm_heads<A>(static_cast<float*>(x), count, head_dim, weights, epsilon);
    if (type == ropewalk::element_type::f16)
        return norm_heads<A>(static_cast<ropewalk::f16*>(x), count, head_dim, weights, epsilon);
    norm_heads<A>(static_cast<ropewalk::bf16*>(x), count, head_dim, weights, epsilon);
}

/// A rotation in portable C++. It has no __restrict, like the loops of engines: GCC vectorises it after a check that
/// the token does not overlap the table.
template <class A>
struct plain_rotation {
    template <class L, class T>
    static void loop(void* token, std::int64_t heads, std::int64_t head_dim, const float* cos, const float* sin) {
        const std::int64_t pairs = head_dim / 2;
        auto* x = static_cast<T*>(token);
        for (const T* const end = x + heads * head_dim; x != end; x += head_dim) {
            for (std::int64_t j = 0; j < pairs; ++j) {
                T &first = x[L::first(j, pairs)], &second = x[L::second(j, pairs)];
                const auto a = static_cast<float>(first), b = static_cast<float>(second);
                first = T(a * cos[j] - b * sin[j]);
                second = T(a * sin[j] + b * cos[j]);
            }
        }
    }
};

/// Rotation::loop<L, T> for an element type and a layout.
template <class Rotation>
rotation_loop rotation_of(ropewalk::element_type type, ropewalk::layout_kind layout) {
    using ropewalk::element_type, ropewalk::half_split, ropewalk::interleaved;
    const bool split = layout == ropewalk::layout_kind::half_split;
    if (type == element_type::f32)
        return split ? Rotation::template loop<half_split, float> : Rotation::template loop<interleaved, float>;
    if (type == element_type::f16) {
        return split ? Rotation::template loop<half_split, ropewalk::f16>
                     : Rotation::template loop<interleaved, ropewalk::f16>;
    }
    return split ? Rotation::template loop<half_split, ropewalk::bf16>
                 : Rotation::template loop<interleaved, ropewalk::bf16>;
}

template <class A>
rotation_loop plain_rotation_of(ropewalk::element_type type, ropewalk::layout_kind layout, bool /*in_cache*/) {
    return rotation_of<plain_rotation<A>>(type, layout);
}

template <class A>
constexpr bandwidth_loops loops_of(std::string_view instruction_set,
                                   decltype(bandwidth_loops::rotation) rotation = plain_rotation_of<A>) {
    return {.instruction_set = instruction_set,
            .scale = scale<A>,
            .scale_into = scale_into<A>,
            .convert_f16 = convert_f16<A>,
            .convert_bf16 = convert_bf16<A>,
            .store = store<A>,
            .norm = norm<A>,
            .rotation = rotation};
}

}  // namespace bench
