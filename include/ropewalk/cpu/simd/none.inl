// Declarations for builds without SIMD registers: the kernels name them but rotate one pair at a time, so none is used.
// Included by simd.hpp.
#include <cstring>

namespace ropewalk::cpu {

/// The only architecture without xsimd.
using native_arch = scalar_arch;

namespace detail {

template <class A>
inline constexpr bool is_avx512 = false;
template <class A>
inline constexpr std::int64_t lane_count = 1;
template <class A>
using narrower = scalar_arch;

template <class A>
struct floats;
template <class A>
struct words;
template <class A>
struct quads;

template <class To, class From>
auto as(const From& value);
template <class A>
floats<A> even_lanes(const floats<A>& a, const floats<A>& b);
template <class A>
floats<A> odd_lanes(const floats<A>& a, const floats<A>& b);
template <class A>
floats<A> twice_low(const floats<A>& a);
template <class A>
floats<A> swap_pairs(const floats<A>& a);
template <class A>
quads<A> multiply_low(const quads<A>& a, const quads<A>& b);
template <class A>
words<A> odd_words(const quads<A>& a, const quads<A>& b);
template <class A>
words<A> upper_products(const std::uint64_t* rates, std::uint64_t number);
template <class A>
words<A> load_upper_halves(const std::uint16_t* source);
template <class A>
void store_upper_halves(std::uint16_t* target, const words<A>& value);
template <class A>
words<A> round_to_bf16_pairs(const words<A>& even, const words<A>& odd);
template <class A>
inline constexpr bool converts_f16 = false;
template <class A>
floats<A> load_f16(const f16* source);
template <class A>
void store_f16(f16* target, const floats<A>& value);

template <class A>
RW_INLINE void stream_lines(void* target, const void* source, std::size_t bytes) {
    std::memcpy(target, source, bytes);
}
RW_INLINE void finish_streams() {}

}  // namespace detail
}  // namespace ropewalk::cpu
