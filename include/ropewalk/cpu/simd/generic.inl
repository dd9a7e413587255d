// Lane shuffles and 64-bit products through memory, for NEON and any architecture without a file of its own. Compilers
// turn them into shuffles where they can. Included by simd.hpp.
#include <array>
#include <cstring>

namespace ropewalk::cpu::detail {

template <class A>
RW_INLINE floats<A> multiply_add(const floats<A>& a, const floats<A>& b, const floats<A>& c) {
    return xsimd::fma(a, b, c);
}
template <class A>
RW_INLINE floats<A> multiply_subtract(const floats<A>& a, const floats<A>& b, const floats<A>& c) {
    return xsimd::fms(a, b, c);
}

template <class A, int Bit>
RW_INLINE floats<A> choose(const words<A>& which, const floats<A>& a, const floats<A>& b) {
    const words<A> mask = words<A>(0U) - ((which >> Bit) & words<A>(1U)), other = as<std::uint32_t>(b);
    return as<float>(words<A>(other ^ (mask & (as<std::uint32_t>(a) ^ other))));
}

/// Lane i of the result is lane source(i) of a followed by b.
template <class A, class Source>
RW_INLINE floats<A> shuffled(const floats<A>& a, const floats<A>& b, Source source) {
    constexpr auto n = static_cast<std::size_t>(lane_count<A>);
    std::array<float, 2 * n> both;
    std::array<float, n> result;
    a.store_unaligned(both.data());
    b.store_unaligned(both.data() + n);
    for (std::size_t i = 0; i < n; ++i) result[i] = both[source(i, n)];
    return floats<A>::load_unaligned(result.data());
}

template <class A>
RW_INLINE floats<A> even_lanes(const floats<A>& a, const floats<A>& b) {
    return shuffled(a, b, [](std::size_t i, std::size_t) { return 2 * i; });
}
template <class A>
RW_INLINE floats<A> odd_lanes(const floats<A>& a, const floats<A>& b) {
    return shuffled(a, b, [](std::size_t i, std::size_t) { return 2 * i + 1; });
}
template <class A>
RW_INLINE floats<A> twice_low(const floats<A>& a) {
    return shuffled(a, a, [](std::size_t i, std::size_t) { return i / 2; });
}
template <class A>
RW_INLINE floats<A> swap_pairs(const floats<A>& a) {
    return shuffled(a, a, [](std::size_t i, std::size_t) { return i ^ 1U; });
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

template <class A>
RW_INLINE words<A> load_upper_halves(const std::uint16_t* source) {
    std::array<std::uint32_t, static_cast<std::size_t>(lane_count<A>)> lanes;
    for (std::size_t i = 0; i < lanes.size(); ++i) lanes[i] = static_cast<std::uint32_t>(source[i]) << 16;
    return words<A>::load_unaligned(lanes.data());
}
template <class A>
RW_INLINE void store_upper_halves(std::uint16_t* target, const words<A>& value) {
    std::array<std::uint32_t, static_cast<std::size_t>(lane_count<A>)> lanes;
    value.store_unaligned(lanes.data());
    for (std::size_t i = 0; i < lanes.size(); ++i) target[i] = static_cast<std::uint16_t>(lanes[i] >> 16);
}

template <class A>
RW_INLINE words<A> round_to_bf16_pairs(const words<A>& even, const words<A>& odd) {
    return round_to_bf16_pairs_generic<A>(even, odd);
}

template <class A>
inline constexpr bool converts_f16 = false;
template <class A>
RW_INLINE floats<A> load_f16(const f16* source);
template <class A>
RW_INLINE void store_f16(f16* target, const floats<A>& value);

template <class A>
RW_INLINE floats<A> load_signed_bytes(const std::int8_t* source) {
    std::array<float, static_cast<std::size_t>(lane_count<A>)> lanes;
    for (std::size_t i = 0; i < lanes.size(); ++i) lanes[i] = static_cast<float>(source[i]);
    return floats<A>::load_unaligned(lanes.data());
}

template <class A>
RW_INLINE void stream_lines(void* target, const void* source, std::size_t bytes) {
    std::memcpy(target, source, bytes);
}
RW_INLINE void finish_streams() {}

}  // namespace ropewalk::cpu::detail
