// Lane shuffles and 64-bit products of 128-bit registers by the vector extensions of GCC and Clang, for NEON, for
// builds without xsimd, and for any architecture without a file of its own. Included by xsimd.inl and portable.inl.
#include <cstring>

namespace ropewalk::cpu::detail {

static_assert(lane_count<native_arch> == 4, "an architecture with wider registers needs a file of its own");

template <class A, int Bit>
RW_INLINE floats<A> choose(const words<A>& which, const floats<A>& a, const floats<A>& b) {
    const words<A> mask = words<A>(0U) - ((which >> Bit) & words<A>(1U)), other = as<std::uint32_t>(b);
    return as<float>(words<A>(other ^ (mask & (as<std::uint32_t>(a) ^ other))));
}

template <class A>
RW_INLINE float sum_of_lanes(const floats<A>& a) {
    return (a.data[0] + a.data[2]) + (a.data[1] + a.data[3]);
}
template <class A>
RW_INLINE floats<A> even_lanes(const floats<A>& a, const floats<A>& b) {
    return floats<A>(__builtin_shufflevector(a.data, b.data, 0, 2, 4, 6));
}
template <class A>
RW_INLINE floats<A> odd_lanes(const floats<A>& a, const floats<A>& b) {
    return floats<A>(__builtin_shufflevector(a.data, b.data, 1, 3, 5, 7));
}
template <class A>
RW_INLINE floats<A> twice_low(const floats<A>& a) {
    return floats<A>(__builtin_shufflevector(a.data, a.data, 0, 0, 1, 1));
}
template <class A>
RW_INLINE floats<A> swap_pairs(const floats<A>& a) {
    return floats<A>(__builtin_shufflevector(a.data, a.data, 1, 0, 3, 2));
}
template <class A>
RW_INLINE quads<A> multiply_low(const quads<A>& a, const quads<A>& b) {
    return a * b;
}
template <class A>
RW_INLINE words<A> odd_words(const quads<A>& a, const quads<A>& b) {
    return as<std::uint32_t>(odd_lanes<A>(as<float>(a), as<float>(b)));
}
template <class A>
RW_INLINE words<A> upper_products(const std::uint64_t* rates, std::uint64_t number) {
    const auto a = quads<A>::load_unaligned(rates), b = quads<A>::load_unaligned(rates + lane_count<A> / 2);
    const quads<A> n(number);
    return odd_words<A>(multiply_low<A>(a, n), multiply_low<A>(b, n));
}

/// Four 16-bit words and four 32-bit words.
typedef std::uint16_t four_halves __attribute__((vector_size(8)));
typedef std::uint32_t four_words __attribute__((vector_size(16)));

template <class A>
RW_INLINE words<A> load_upper_halves(const std::uint16_t* source) {
    four_halves halves;
    std::memcpy(&halves, source, sizeof halves);
    return words<A>(__builtin_convertvector(halves, four_words) << 16);
}
template <class A>
RW_INLINE void store_upper_halves(std::uint16_t* target, const words<A>& value) {
    const four_halves halves = __builtin_convertvector(four_words(value.data) >> 16, four_halves);
    std::memcpy(target, &halves, sizeof halves);
}

template <class A>
RW_INLINE words<A> round_to_bf16_pairs(const words<A>& even, const words<A>& odd) {
    return round_to_bf16_pairs_generic<A>(even, odd);
}

template <class A>
RW_INLINE floats<A> load_signed_bytes(const std::int8_t* source) {
    const float lanes[4] = {static_cast<float>(source[0]), static_cast<float>(source[1]), static_cast<float>(source[2]),
                            static_cast<float>(source[3])};
    return floats<A>::load_unaligned(lanes);
}

template <class A>
RW_INLINE void store_low_bytes(std::uint8_t* target, const words<A>& value) {
    std::uint32_t lanes[4];
    value.store_unaligned(lanes);
    for (int i = 0; i < 4; ++i) target[i] = static_cast<std::uint8_t>(lanes[i]);
}

template <class A>
RW_INLINE void stream_lines(void* target, const void* source, std::size_t bytes) {
    std::memcpy(target, source, bytes);
}
RW_INLINE void finish_streams() {}

}  // namespace ropewalk::cpu::detail

#if defined(__aarch64__)
#include "ropewalk/cpu/simd/neon.inl"
#else
namespace ropewalk::cpu::detail {

template <class A>
inline constexpr bool converts_f16 = false;
template <class A>
RW_INLINE floats<A> load_f16(const f16* source);
template <class A>
RW_INLINE void store_f16(f16* target, const floats<A>& value);

}  // namespace ropewalk::cpu::detail
#endif
