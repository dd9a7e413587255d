// Lane shuffles, 64-bit products and half precision with x86 intrinsics. Included by simd.hpp.
#include <immintrin.h>

namespace ropewalk::cpu::detail {

/// a · b + c, fused where A has the instruction. (xsimd 8.1 does not fuse for AVX-512.)
template <class A>
RW_INLINE floats<A> multiply_add(const floats<A>& a, const floats<A>& b, const floats<A>& c) {
    if constexpr (is_avx512<A>) {
        return _mm512_fmadd_ps(a, b, c);
#if defined(__FMA__)  // the end of a row rounds like the wider registers before it
    } else if constexpr (!is_avx2<A>) {
        return _mm_fmadd_ps(a, b, c);
#endif
    } else {
        return xsimd::fma(a, b, c);
    }
}

/// a · b − c, fused where A has the instruction.
template <class A>
RW_INLINE floats<A> multiply_subtract(const floats<A>& a, const floats<A>& b, const floats<A>& c) {
    if constexpr (is_avx512<A>) {
        return _mm512_fmsub_ps(a, b, c);
#if defined(__FMA__)  // the end of a row rounds like the wider registers before it
    } else if constexpr (!is_avx2<A>) {
        return _mm_fmsub_ps(a, b, c);
#endif
    } else {
        return xsimd::fms(a, b, c);
    }
}

/// a where a bit of `which` is set, else b.
template <class A, int Bit>
RW_INLINE floats<A> choose(const words<A>& which, const floats<A>& a, const floats<A>& b) {
    if constexpr (is_avx512<A>) {
        return _mm512_mask_blend_ps(_mm512_test_epi32_mask(which, words<A>(1U << Bit)), b, a);
    } else if constexpr (is_avx2<A>) {
        return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(_mm256_slli_epi32(which, 31 - Bit)));
    } else {
        const __m128 mask = _mm_castsi128_ps(_mm_srai_epi32(_mm_slli_epi32(which, 31 - Bit), 31));
        return _mm_xor_ps(b, _mm_and_ps(mask, _mm_xor_ps(a, b)));
    }
}

/// The sum of all lanes, added by halves: lane 0 and the one half a register on first.
template <class A>
RW_INLINE float sum_of_lanes(const floats<A>& a) {
    __m128 quarter;
    if constexpr (is_avx512<A>) {
        const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
        quarter = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    } else if constexpr (is_avx2<A>) {
        quarter = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    } else {
        quarter = a;
    }
    const __m128 two = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}

/// Lanes 0, 2, 4, … of a, then those of b.
template <class A>
RW_INLINE floats<A> even_lanes(const floats<A>& a, const floats<A>& b) {
    if constexpr (is_avx512<A>) {
        const __m512i lanes = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        return _mm512_permutex2var_ps(a, lanes, b);
    } else if constexpr (is_avx2<A>) {
        const __m256 mixed = _mm256_shuffle_ps(a, b, 0x88);
        return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(mixed), 0xD8));
    } else {
        return _mm_shuffle_ps(a, b, 0x88);
    }
}

/// Lanes 1, 3, 5, … of a, then those of b.
template <class A>
RW_INLINE floats<A> odd_lanes(const floats<A>& a, const floats<A>& b) {
    if constexpr (is_avx512<A>) {
        const __m512i lanes = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
        return _mm512_permutex2var_ps(a, lanes, b);
    } else if constexpr (is_avx2<A>) {
        const __m256 mixed = _mm256_shuffle_ps(a, b, 0xDD);
        return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(mixed), 0xD8));
    } else {
        return _mm_shuffle_ps(a, b, 0xDD);
    }
}

/// Each lane of the lower half of the register twice.
template <class A>
RW_INLINE floats<A> twice_low(const floats<A>& a) {
    if constexpr (is_avx512<A>) {
        return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7), a);
    } else if constexpr (is_avx2<A>) {
        return _mm256_permutevar8x32_ps(a, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
    } else {
        return _mm_unpacklo_ps(a, a);
    }
}

/// Lanes 2i and 2i + 1 exchanged. (xsimd's swizzle emits the slower vpermps under GCC: 0.40 of the scale, not 0.65.)
template <class A>
RW_INLINE floats<A> swap_pairs(const floats<A>& a) {
    if constexpr (is_avx512<A>) {
        return _mm512_permute_ps(a, 0xB1);
    } else if constexpr (is_avx2<A>) {
        return _mm256_permute_ps(a, 0xB1);
    } else {
        return _mm_shuffle_ps(a, a, 0xB1);
    }
}

/// a · b modulo 2^64.
template <class A>
RW_INLINE quads<A> multiply_low(const quads<A>& a, const quads<A>& b) {
    if constexpr (is_avx512<A>) {
        return _mm512_mullo_epi64(a, b);
    } else if constexpr (is_avx2<A>) {
        const __m256i cross = _mm256_add_epi64(_mm256_mul_epu32(_mm256_srli_epi64(a, 32), b),
                                               _mm256_mul_epu32(a, _mm256_srli_epi64(b, 32)));
        return _mm256_add_epi64(_mm256_mul_epu32(a, b), _mm256_slli_epi64(cross, 32));
    } else {
        const __m128i cross =
            _mm_add_epi64(_mm_mul_epu32(_mm_srli_epi64(a, 32), b), _mm_mul_epu32(a, _mm_srli_epi64(b, 32)));
        return _mm_add_epi64(_mm_mul_epu32(a, b), _mm_slli_epi64(cross, 32));
    }
}

/// The upper words of a, then those of b.
template <class A>
RW_INLINE words<A> odd_words(const quads<A>& a, const quads<A>& b) {
    return as<std::uint32_t>(odd_lanes<A>(as<float>(a), as<float>(b)));
}

/// The upper words of lane_count<A> rates times a number, modulo 2^64.
template <class A>
RW_INLINE words<A> upper_products(const std::uint64_t* rates, std::uint64_t number) {
    const auto a = quads<A>::load_unaligned(rates), b = quads<A>::load_unaligned(rates + lane_count<A> / 2);
    const quads<A> n(number);
    if constexpr (is_avx512<A> || !is_avx2<A>) {
        return odd_words<A>(multiply_low<A>(a, n), multiply_low<A>(b, n));
    } else {
        // Only the lower words of the cross products count: one multiplication makes both.
        const __m256i swapped = _mm256_shuffle_epi32(n, 0xB1);
        const __m256i crosses = _mm256_hadd_epi32(_mm256_mullo_epi32(a, swapped), _mm256_mullo_epi32(b, swapped));
        const __m256 straight = _mm256_shuffle_ps(_mm256_castsi256_ps(_mm256_mul_epu32(a, n)),
                                                  _mm256_castsi256_ps(_mm256_mul_epu32(b, n)), 0xDD);
        return _mm256_permute4x64_epi64(_mm256_add_epi32(crosses, _mm256_castps_si256(straight)), 0xD8);
    }
}

/// lane_count<A> consecutive 16-bit words in the upper halves of 32-bit lanes.
template <class A>
RW_INLINE words<A> load_upper_halves(const std::uint16_t* source) {
    if constexpr (is_avx512<A>) {
        const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source));
        return _mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16);
    } else if constexpr (is_avx2<A>) {
        const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(source));
        return _mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16);
    } else {
        return _mm_unpacklo_epi16(_mm_setzero_si128(), _mm_loadl_epi64(reinterpret_cast<const __m128i*>(source)));
    }
}

/// The upper halves of 32-bit lanes as consecutive 16-bit words.
template <class A>
RW_INLINE void store_upper_halves(std::uint16_t* target, const words<A>& value) {
    if constexpr (is_avx512<A>) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(target), _mm512_cvtepi32_epi16(_mm512_srli_epi32(value, 16)));
    } else if constexpr (is_avx2<A>) {
        // An arithmetic shift keeps the sign, so the signed pack does not saturate.
        const __m256i shifted = _mm256_srai_epi32(value, 16);
        const __m256i packed = _mm256_permute4x64_epi64(_mm256_packs_epi32(shifted, shifted), 0xD8);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(target), _mm256_castsi256_si128(packed));
    } else {
        const __m128i shifted = _mm_srai_epi32(value, 16);
        _mm_storel_epi64(reinterpret_cast<__m128i*>(target), _mm_packs_epi32(shifted, shifted));
    }
}

/// round_to_bf16_pairs_generic() on 16-bit lanes: adds 1 to an upper half where its lower half exceeds half a unit, or
/// equals it and the upper half is odd.
template <class A>
RW_INLINE words<A> round_to_bf16_pairs(const words<A>& even, const words<A>& odd) {
    if constexpr (is_avx512<A>) {
        const __mmask32 odd_lanes = 0xAAAAAAAAU;
        const __m512i e = even, o = odd;  // at -O0 the blend of GCC is a macro without conversions
        const __m512i upper = _mm512_mask_blend_epi16(odd_lanes, _mm512_srli_epi32(e, 16), o);
        const __m512i lower = _mm512_mask_blend_epi16(odd_lanes, e, _mm512_slli_epi32(o, 16));
        const __m512i one = _mm512_set1_epi16(1);
        const __m512i weight = _mm512_adds_epu16(lower, _mm512_and_si512(upper, one));
        const __mmask32 up = _mm512_cmpgt_epu16_mask(weight, _mm512_set1_epi16(static_cast<short>(0x8000)));
        return _mm512_mask_add_epi16(upper, up, upper, one);
    } else if constexpr (is_avx2<A>) {
        const __m256i upper = _mm256_blend_epi16(_mm256_srli_epi32(even, 16), odd, 0xAA);
        const __m256i lower = _mm256_blend_epi16(even, _mm256_slli_epi32(odd, 16), 0xAA);
        const __m256i weight = _mm256_adds_epu16(lower, _mm256_and_si256(upper, _mm256_set1_epi16(1)));
        const __m256i up = _mm256_cmpgt_epi16(_mm256_xor_si256(weight, _mm256_set1_epi16(static_cast<short>(0x8000))),
                                              _mm256_setzero_si256());
        return _mm256_sub_epi16(upper, up);
    } else {
        return round_to_bf16_pairs_generic<A>(even, odd);
    }
}

/// True where A converts f16 by instructions. Every machine with AVX2 and FMA has them, but -mf16c may be missing.
template <class A>
#if defined(__F16C__)
inline constexpr bool converts_f16 =
    is_avx512<A> || std::is_base_of_v<xsimd::fma3<xsimd::avx2>, A> || std::is_same_v<xsimd::sse4_2, A>;
#else
inline constexpr bool converts_f16 = is_avx512<A>;
#endif

/// lane_count<A> halves as floats.
template <class A>
RW_INLINE floats<A> load_f16(const f16* source) {
    if constexpr (is_avx512<A>) {
        return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(source)));
    } else if constexpr (is_avx2<A>) {
        return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source)));
    } else {
        return _mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(source)));
    }
}

/// Floats as lane_count<A> halves, rounded to nearest even.
template <class A>
RW_INLINE void store_f16(f16* target, const floats<A>& value) {
    constexpr int nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    if constexpr (is_avx512<A>) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(target), _mm512_cvtps_ph(value, nearest));
    } else if constexpr (is_avx2<A>) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(target), _mm256_cvtps_ph(value, nearest));
    } else {
        _mm_storel_epi64(reinterpret_cast<__m128i*>(target), _mm_cvtps_ph(value, nearest));
    }
}

/// lane_count<A> signed bytes as floats.
template <class A>
RW_INLINE floats<A> load_signed_bytes(const std::int8_t* source) {
    if constexpr (is_avx512<A>) {
        const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(source));
        return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
    } else if constexpr (is_avx2<A>) {
        const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(source));
        return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
    } else {
        const __m128i zero = _mm_setzero_si128();
        const __m128i bytes = _mm_castps_si128(_mm_load_ss(reinterpret_cast<const float*>(source)));
        const __m128i upper = _mm_unpacklo_epi16(zero, _mm_unpacklo_epi8(zero, bytes));
        return _mm_cvtepi32_ps(_mm_srai_epi32(upper, 24));
    }
}

/// The lowest bytes of 32-bit lanes as consecutive bytes.
template <class A>
RW_INLINE void store_low_bytes(std::uint8_t* target, const words<A>& value) {
    if constexpr (is_avx512<A>) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(target), _mm512_cvtepi32_epi8(value));
    } else if constexpr (is_avx2<A>) {
        const __m256i bytes = _mm256_and_si256(value, _mm256_set1_epi32(0xff));
        const __m128i halves = _mm_packus_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
        _mm_storel_epi64(reinterpret_cast<__m128i*>(target), _mm_packus_epi16(halves, halves));
    } else {
        const __m128i bytes = _mm_and_si128(value, _mm_set1_epi32(0xff)), halves = _mm_packs_epi32(bytes, bytes);
        _mm_store_ss(reinterpret_cast<float*>(target), _mm_castsi128_ps(_mm_packus_epi16(halves, halves)));
    }
}

/// Writes whole cache lines by non-temporal stores. Both addresses begin a line.
template <class A>
RW_INLINE void stream_lines(void* target, const void* source, std::size_t bytes) {
    auto* const to = static_cast<char*>(target);
    const auto* const from = static_cast<const char*>(source);
    for (std::size_t at = 0; at < bytes; at += 64) {
        if constexpr (is_avx512<A>) {
            _mm512_stream_si512(reinterpret_cast<__m512i*>(to + at), _mm512_load_si512(from + at));
        } else if constexpr (is_avx2<A>) {
            for (std::size_t i = at; i < at + 64; i += 32)
                _mm256_stream_si256(reinterpret_cast<__m256i*>(to + i),
                                    _mm256_load_si256(reinterpret_cast<const __m256i*>(from + i)));
        } else {
            for (std::size_t i = at; i < at + 64; i += 16)
                _mm_stream_si128(reinterpret_cast<__m128i*>(to + i),
                                 _mm_load_si128(reinterpret_cast<const __m128i*>(from + i)));
        }
    }
}

/// Makes streamed lines visible to other threads.
RW_INLINE void finish_streams() { _mm_sfence(); }

}  // namespace ropewalk::cpu::detail
