// Registers of 16 bytes by the vector extensions of GCC and Clang, for builds without xsimd. Included by simd.hpp.
#include <cstring>

namespace ropewalk::cpu {

/// The only architecture without xsimd.
struct portable_arch {};
using native_arch = portable_arch;

namespace detail {

/// A vector of 16 bytes. (A type of its own: inside portable_batch GCC 12 takes it for E.)
template <class E>
struct vector_of {
    typedef E type __attribute__((vector_size(16)));
};

/// A register with the interface of xsimd::batch, as far as the kernels use it.
template <class E>
struct portable_batch {
    using arch_type = portable_arch;
    using register_type = typename vector_of<E>::type;
    static constexpr std::size_t size = 16 / sizeof(E);

    register_type data;

    portable_batch() = default;
    RW_INLINE portable_batch(register_type value) : data(value) {}  // NOLINT(google-explicit-constructor)
    explicit RW_INLINE portable_batch(E value) {
        for (std::size_t i = 0; i < size; ++i) data[i] = value;
    }
    // Untyped pointers, because UBSan takes a `const E*` for an aligned address, even in memcpy().
    static RW_INLINE portable_batch load_unaligned(const void* source) {
        portable_batch result;
        std::memcpy(&result.data, source, sizeof result.data);
        return result;
    }
    RW_INLINE void store_unaligned(void* target) const { std::memcpy(target, &data, sizeof data); }

    friend RW_INLINE portable_batch operator+(portable_batch a, portable_batch b) { return a.data + b.data; }
    friend RW_INLINE portable_batch operator-(portable_batch a, portable_batch b) { return a.data - b.data; }
    friend RW_INLINE portable_batch operator*(portable_batch a, portable_batch b) { return a.data * b.data; }
    friend RW_INLINE portable_batch operator/(portable_batch a, portable_batch b) { return a.data / b.data; }
    friend RW_INLINE portable_batch operator&(portable_batch a, portable_batch b) { return a.data & b.data; }
    friend RW_INLINE portable_batch operator|(portable_batch a, portable_batch b) { return a.data | b.data; }
    friend RW_INLINE portable_batch operator>>(portable_batch a, int bits) { return a.data >> bits; }
    friend RW_INLINE portable_batch operator<<(portable_batch a, int bits) { return a.data << bits; }
    friend RW_INLINE portable_batch operator^(portable_batch a, portable_batch b) {
        if constexpr (std::is_same_v<E, float>) {
            return (a.bits() ^ b.bits()).as_floats();
        } else {
            return a.data ^ b.data;
        }
    }
    RW_INLINE portable_batch<std::uint32_t> bits() const;
    RW_INLINE portable_batch<float> as_floats() const;

    // Comparisons give all bits or none in each lane.
    friend RW_INLINE auto operator<(portable_batch a, portable_batch b) { return a.data < b.data; }
    friend RW_INLINE auto operator>(portable_batch a, portable_batch b) { return a.data > b.data; }
    friend RW_INLINE auto operator>=(portable_batch a, portable_batch b) { return a.data >= b.data; }
    friend RW_INLINE auto isnan(portable_batch a) { return a.data != a.data; }
    template <class Mask>
    friend RW_INLINE portable_batch select(Mask mask, portable_batch a, portable_batch b) {
        return mask ? a.data : b.data;
    }
};

template <class A>
inline constexpr bool is_avx512 = false;
template <class A>
using floats = portable_batch<float>;
template <class A>
using words = portable_batch<std::uint32_t>;
template <class A>
using quads = portable_batch<std::uint64_t>;

/// Floats per register.
template <class A>
inline constexpr std::int64_t lane_count = 4;
template <class A>
using narrower = scalar_arch;

/// The same bits as lanes of another type.
template <class To, class From>
RW_INLINE portable_batch<To> as(const portable_batch<From>& value) {
    portable_batch<To> result;
    std::memcpy(&result.data, &value.data, sizeof result.data);
    return result;
}
template <class E>
RW_INLINE portable_batch<std::uint32_t> portable_batch<E>::bits() const {
    return as<std::uint32_t>(*this);
}
template <class E>
RW_INLINE portable_batch<float> portable_batch<E>::as_floats() const {
    return as<float>(*this);
}

/// Two's complement integers as floats.
template <class A>
RW_INLINE floats<A> from_signed(const words<A>& value) {
    return __builtin_convertvector(as<std::int32_t>(value).data, typename floats<A>::register_type);
}

template <class A>
RW_INLINE floats<A> multiply_add(const floats<A>& a, const floats<A>& b, const floats<A>& c) {
    floats<A> result;
    for (std::size_t i = 0; i < floats<A>::size; ++i) result.data[i] = RW_FMA(a.data[i], b.data[i], c.data[i]);
    return result;
}
template <class A>
RW_INLINE floats<A> multiply_subtract(const floats<A>& a, const floats<A>& b, const floats<A>& c) {
    return multiply_add<A>(a, b, floats<A>(-c.data));
}

}  // namespace detail
}  // namespace ropewalk::cpu

#include "ropewalk/cpu/simd/rounding.inl"

#include "ropewalk/cpu/simd/generic.inl"
