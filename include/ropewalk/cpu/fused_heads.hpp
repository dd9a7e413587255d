// Heads as floats: widening, norms, and stores in the element type of a destination.
#pragma once

#include <cmath>
#include <cstring>

#include "ropewalk/core/cache_type.hpp"
#include "ropewalk/cpu/simd/load_store.hpp"

namespace ropewalk::cpu::detail {

/// Widens the elements of a head, multiplied by `factor` and then by `weights`.
template <class A, class T>
void scale_head(const T* from, std::int64_t count, float factor, const float* weights, float* to) {
    const floats<A> factors(factor);
    const std::int64_t full = count & -lane_count<A>;
    for (std::int64_t i = 0; i < full; i += lane_count<A>)
        floats<A>(load_elements<A>(from + i) * factors * floats<A>::load_unaligned(weights + i))
            .store_unaligned(to + i);
    for (std::int64_t i = full; i < count; ++i) to[i] = static_cast<float>(from[i]) * factor * weights[i];
}

/// Widens elements.
template <class A, class T>
void widen_elements(const T* from, std::int64_t count, float* to) {
    const std::int64_t full = count & -lane_count<A>;
    for (std::int64_t i = 0; i < full; i += lane_count<A>) load_elements<A>(from + i).store_unaligned(to + i);
    for (std::int64_t i = full; i < count; ++i) to[i] = static_cast<float>(from[i]);
}

/// The sum of the squares of a head. Its order is the same for every width of registers: 32 sums of every 32nd element,
/// which are then added by halves.
template <class A, class T>
float sum_of_squares(const T* from, std::int64_t count) {
    constexpr std::int64_t sums = 32, n = lane_count<A>, registers = sums / n;
    floats<A> sum[static_cast<std::size_t>(registers)];
    for (auto& each : sum) each = floats<A>(0.0F);
    const auto add = [&](const auto* elements) __attribute__((always_inline)) {
        RW_UNROLL
        for (std::int64_t i = 0; i < registers; ++i) {
            const floats<A> x = load_elements<A>(elements + i * n);
            sum[i] = multiply_add<A>(x, x, sum[i]);
        }
    };
    const std::int64_t full = count / sums * sums;
    for (std::int64_t i = 0; i < full; i += sums) add(from + i);
    if (full < count) {
        float last[sums] = {};
        for (std::int64_t i = full; i < count; ++i) last[i - full] = static_cast<float>(from[i]);
        add(static_cast<const float*>(last));
    }
    RW_UNROLL
    for (std::int64_t half = registers / 2; half > 0; half /= 2) {
        RW_UNROLL
        for (std::int64_t i = 0; i < half; ++i) sum[i] = sum[i] + sum[i + half];
    }
    return sum_of_lanes<A>(sum[0]);
}

/// The largest |x| of a head, as its bits: those of a NaN if there is one.
template <class A>
std::uint32_t largest_magnitude(const float* x, std::int64_t count) {
    const auto bits_of = [](float value) { return ropewalk::detail::bit_cast<std::uint32_t>(value) & 0x7fffffffU; };
    floats<A> largest(0.0F);
    words<A> nan(0U);
    const std::int64_t full = count & -lane_count<A>;
    for (std::int64_t i = 0; i < full; i += lane_count<A>) {
        const floats<A> value = floats<A>::load_unaligned(x + i);
        const words<A> bits = as<std::uint32_t>(value) & words<A>(0x7fffffffU);
        const floats<A> magnitude = as<float>(bits);
        largest = select(magnitude > largest, magnitude, largest);
        nan = nan | as<std::uint32_t>(select(isnan(magnitude), magnitude, floats<A>(0.0F)));
    }
    std::uint32_t result = 0;
    for (const floats<A>& part : {largest, as<float>(nan)}) {
        float lanes[static_cast<std::size_t>(lane_count<A>)];
        part.store_unaligned(lanes);
        for (const float lane : lanes) result = bits_of(lane) > result ? bits_of(lane) : result;
    }
    for (std::int64_t i = full; i < count; ++i) result = bits_of(x[i]) > result ? bits_of(x[i]) : result;
    return result;
}

/// Rounds as fp8_format::round() does: the bytes in the low bits of lanes.
template <class A, class Format>
RW_INLINE words<A> rounded_to_f8(const floats<A>& value) {
    const auto number = [](std::uint32_t bits) { return as<float>(words<A>(bits)); };
    const words<A> bits = as<std::uint32_t>(value), magnitude = bits & words<A>(0x7fffffffU);
    const floats<A> size = as<float>(magnitude);
    const words<A> odd = (magnitude >> Format::shift) & words<A>(1U);
    const words<A> half_below((1U << (Format::shift - 1)) - 1U - Format::rebias);
    const words<A> normal = (magnitude + (odd + half_below)) >> Format::shift;
    const words<A> subnormal = as<std::uint32_t>(floats<A>(size + number(Format::steps))) - words<A>(Format::steps);
    floats<A> code = select(size < number(Format::smallest_normal), as<float>(subnormal), as<float>(normal));
    code = select(size >= number(Format::limit), number(Format::largest), code);
    const words<A> sign = (bits >> 24) & words<A>(0x80U);
    return as<std::uint32_t>(select(isnan(size), number(0x7fU), as<float>(words<A>(as<std::uint32_t>(code) | sign))));
}

/// The destination of some heads of one token. Steps are in elements.
struct head_target {
    void* data;
    std::int64_t step;
    cache_type type;
    float scale;    ///< of f8
    float* scales;  ///< of i8
    std::int64_t scale_step;
};

/// Stores a head as f32, f16 or bf16.
template <class A, Element E>
void store_head(const head_target& /*target*/, std::int64_t /*head*/, const float* x, std::int64_t count, E* to) {
    const std::int64_t full = count & -lane_count<A>;
    for (std::int64_t i = 0; i < full; i += lane_count<A>) store_elements<A>(to + i, floats<A>::load_unaligned(x + i));
    for (std::int64_t i = full; i < count; ++i) to[i] = E(x[i]);
}

/// Stores the bytes bytes_of(floats) of a head.
template <class A, class F>
RW_INLINE void store_bytes_of_head(const float* x, std::int64_t count, void* to, const F& bytes_of) {
    auto* const bytes = static_cast<std::uint8_t*>(to);
    const std::int64_t full = count & -lane_count<A>;
    for (std::int64_t i = 0; i < full; i += lane_count<A>)
        store_low_bytes<A>(bytes + i, bytes_of(floats<A>::load_unaligned(x + i)));
    if (full == count) return;
    float last[static_cast<std::size_t>(lane_count<A>)] = {};
    std::uint8_t last_bytes[static_cast<std::size_t>(lane_count<A>)];
    const auto rest = static_cast<std::size_t>(count - full);
    std::memcpy(last, x + full, rest * sizeof(float));
    store_low_bytes<A>(last_bytes, bytes_of(floats<A>::load_unaligned(last)));
    std::memcpy(bytes + full, last_bytes, rest);
}

template <class A>
void store_head(const head_target& target, std::int64_t head, const float* x, std::int64_t count, std::int8_t* to) {
    const int8_scale scale = int8_scale::of(largest_magnitude<A>(x, count));
    target.scales[head * target.scale_step] = scale.stored;
    // Adding 1.5 · 2^23 leaves the nearest integer, ties to even, in the low bits.
    const floats<A> factor(scale.factor), integers(0x1.8p23F);
    store_bytes_of_head<A>(
        x, count, to, [=](const floats<A>& value) __attribute__((always_inline)) {
            return as<std::uint32_t>(floats<A>(floats<A>(value * factor) + integers));
        });
}

/// Stores x / scale, rounded to float, as an f8 type.
template <class A, class Format>
RW_INLINE void store_f8_head(const head_target& target, const float* x, std::int64_t count, void* to) {
    int exponent = 0;
    const floats<A> scale(target.scale), reciprocal(1 / target.scale);
    if (std::frexp(target.scale, &exponent) == 0.5F) {  // a power of two, whose reciprocal is exact
        store_bytes_of_head<A>(
            x, count, to, [=](const floats<A>& value) __attribute__((always_inline)) {
                return rounded_to_f8<A, Format>(value * reciprocal);
            });
    } else {
        store_bytes_of_head<A>(
            x, count, to, [=](const floats<A>& value) __attribute__((always_inline)) {
                return rounded_to_f8<A, Format>(value / scale);
            });
    }
}
template <class A>
void store_head(const head_target& target, std::int64_t /*head*/, const float* x, std::int64_t count, f8e4m3* to) {
    store_f8_head<A, ropewalk::detail::e4m3_format>(target, x, count, to);
}
template <class A>
void store_head(const head_target& target, std::int64_t /*head*/, const float* x, std::int64_t count, f8e5m2* to) {
    store_f8_head<A, ropewalk::detail::e5m2_format>(target, x, count, to);
}

}  // namespace ropewalk::cpu::detail
