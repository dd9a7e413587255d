// A rotation by hand in AVX2 intrinsics, with a table: the loop that an engine without ropewalk can have.
//
// The template parameter A is the architecture of the file that includes it. It keeps the symbols of two files apart.
#pragma once

#include <immintrin.h>

#include <type_traits>

#include "loops.hpp"

namespace bench {

/// Sixteen elements as float: the first and the last eight, or for bf16 the even and the odd ones. A 32-bit lane holds
/// an even and an odd bf16, so that no shuffle is needed.
struct sixteen {
    __m256 low, high;
};

/// Rounds to the nearest even bf16, in the upper half of a lane. NaN is not handled.
template <class A>
RW_INLINE __m256i round_bf16(__m256 x) {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    return _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
}

template <class A, class T>
RW_INLINE sixteen load_sixteen(const T* data) {
    if constexpr (std::is_same_v<T, float>) {
        return {_mm256_loadu_ps(data), _mm256_loadu_ps(data + 8)};
    } else if constexpr (std::is_same_v<T, ropewalk::f16>) {
        const auto* halves = reinterpret_cast<const __m128i*>(data);
        return {_mm256_cvtph_ps(_mm_loadu_si128(halves)), _mm256_cvtph_ps(_mm_loadu_si128(halves + 1))};
    } else {
        const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(data));
        return {_mm256_castsi256_ps(_mm256_slli_epi32(bits, 16)),
                _mm256_castsi256_ps(_mm256_and_si256(bits, _mm256_set1_epi32(static_cast<int>(0xffff0000U))))};
    }
}

template <class A, class T>
RW_INLINE void store_sixteen(T* data, __m256 low, __m256 high) {
    if constexpr (std::is_same_v<T, float>) {
        _mm256_storeu_ps(data, low);
        _mm256_storeu_ps(data + 8, high);
    } else if constexpr (std::is_same_v<T, ropewalk::f16>) {
        auto* halves = reinterpret_cast<__m128i*>(data);
        _mm_storeu_si128(halves, _mm256_cvtps_ph(low, _MM_FROUND_TO_NEAREST_INT));
        _mm_storeu_si128(halves + 1, _mm256_cvtps_ph(high, _MM_FROUND_TO_NEAREST_INT));
    } else {
        const __m256i even = _mm256_srli_epi32(round_bf16<A>(low), 16);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(data), _mm256_blend_epi16(even, round_bf16<A>(high), 0xaa));
    }
}

/// Sixteen values of a table in the order of load_sixteen<T>().
template <class A, class T>
RW_INLINE sixteen load_table(const float* data) {
    const sixteen x = load_sixteen<A>(data);
    if constexpr (!std::is_same_v<T, ropewalk::bf16>) {
        return x;
    } else {
        const auto sorted = [](__m256 lanes) {
            return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(lanes), 0xd8));
        };
        return {sorted(_mm256_shuffle_ps(x.low, x.high, 0x88)), sorted(_mm256_shuffle_ps(x.low, x.high, 0xdd))};
    }
}

/// Rotates `Heads` heads, which share the registers of cos and sin. head_dim is a multiple of 32.
template <class A, class L, int Heads, class T>
RW_INLINE void rotate_heads(T* x, std::int64_t head_dim, const float* cos, const float* sin) {
    if constexpr (std::is_same_v<L, ropewalk::half_split>) {
        for (std::int64_t j = 0; j < head_dim / 2; j += 16) {
            const sixteen c = load_table<A, T>(cos + j), s = load_table<A, T>(sin + j);
            for (int head = 0; head < Heads; ++head) {
                T *const first = x + head * head_dim + j, *const second = first + head_dim / 2;
                const sixteen a = load_sixteen<A>(first), b = load_sixteen<A>(second);
                store_sixteen<A>(first, _mm256_fmsub_ps(a.low, c.low, _mm256_mul_ps(b.low, s.low)),
                                 _mm256_fmsub_ps(a.high, c.high, _mm256_mul_ps(b.high, s.high)));
                store_sixteen<A>(second, _mm256_fmadd_ps(b.low, c.low, _mm256_mul_ps(a.low, s.low)),
                                 _mm256_fmadd_ps(b.high, c.high, _mm256_mul_ps(a.high, s.high)));
            }
        }
    } else if constexpr (std::is_same_v<T, ropewalk::bf16>) {
        for (std::int64_t j = 0; j < head_dim; j += 16) {
            const __m256 c = _mm256_loadu_ps(cos + j / 2), s = _mm256_loadu_ps(sin + j / 2);
            for (int head = 0; head < Heads; ++head) {
                T* const at = x + head * head_dim + j;
                const sixteen a = load_sixteen<A>(at);
                store_sixteen<A>(at, _mm256_fmsub_ps(a.low, c, _mm256_mul_ps(a.high, s)),
                                 _mm256_fmadd_ps(a.high, c, _mm256_mul_ps(a.low, s)));
            }
        }
    } else {
        const auto twice = [](const float* data) {
            return _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(data)),
                                            _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
        };
        const auto swapped = [](__m256 pairs) { return _mm256_permute_ps(pairs, 0xb1); };
        for (std::int64_t j = 0; j < head_dim; j += 16) {
            const sixteen c{twice(cos + j / 2), twice(cos + j / 2 + 4)};
            const sixteen s{twice(sin + j / 2), twice(sin + j / 2 + 4)};
            for (int head = 0; head < Heads; ++head) {
                T* const at = x + head * head_dim + j;
                const sixteen a = load_sixteen<A>(at);
                store_sixteen<A>(at, _mm256_fmaddsub_ps(a.low, c.low, _mm256_mul_ps(swapped(a.low), s.low)),
                                 _mm256_fmaddsub_ps(a.high, c.high, _mm256_mul_ps(swapped(a.high), s.high)));
            }
        }
    }
}

/// Heads that share the registers: several in cache, where loads bound the loop. When data exceeds the caches, one
/// after the other in the order of their addresses is faster.
template <class L, class T, bool InCache>
inline constexpr int heads_together =
    !InCache                                                                       ? 1
    : std::is_same_v<L, ropewalk::half_split> || std::is_same_v<T, ropewalk::bf16> ? 2
                                                                                   : 4;

template <class A, bool InCache>
struct rotation_by_hand {
    template <class L, class T>
    static void loop(void* token, std::int64_t heads, std::int64_t head_dim, const float* cos, const float* sin) {
        constexpr int together = heads_together<L, T, InCache>;
        auto* x = static_cast<T*>(token);
        for (; heads >= together; heads -= together, x += together * head_dim)
            rotate_heads<A, L, together>(x, head_dim, cos, sin);
        for (; heads > 0; --heads, x += head_dim) rotate_heads<A, L, 1>(x, head_dim, cos, sin);
    }
};

template <class A>
rotation_loop avx2_rotation(ropewalk::element_type type, ropewalk::layout_kind layout, bool in_cache) {
    return in_cache ? rotation_of<rotation_by_hand<A, true>>(type, layout)
                    : rotation_of<rotation_by_hand<A, false>>(type, layout);
}

}  // namespace bench
