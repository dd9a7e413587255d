// Vectorized memory access: up to 16 bytes per instruction, widened to float and rounded back.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "ropewalk/core/element.hpp"
#include "ropewalk/core/fp8.hpp"

namespace ropewalk::gpu {

/// The bytes of one memory instruction: words of 32 bits, or one word of 16 or 8 bits.
template <int Bytes>
struct vec_bits {
    static_assert(Bytes == 1 || Bytes == 2 || Bytes == 4 || Bytes == 8 || Bytes == 16,
                  "an access has 1, 2, 4, 8 or 16 bytes");
    using word =
        std::conditional_t<Bytes == 1, std::uint8_t, std::conditional_t<Bytes == 2, std::uint16_t, std::uint32_t>>;
    static constexpr int words = Bytes / static_cast<int>(sizeof(word));
    word value[words];
};

/// Ordinary loads and stores, without cache hints. Addresses are multiples of Bytes. Device code uses inline assembly:
/// for a copied structure or a memcpy, compilers sometimes emit four or sixteen narrow instructions.
struct plain_access {
    template <int Bytes>
    static RW_HD RW_INLINE vec_bits<Bytes> load(const void* from) {
        vec_bits<Bytes> bits;
#if defined(RW_GPU_CODE)
        if constexpr (Bytes == 16) {
            asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                         : "=r"(bits.value[0]), "=r"(bits.value[1]), "=r"(bits.value[2]), "=r"(bits.value[3])
                         : "l"(from));
        } else if constexpr (Bytes == 8) {
            asm volatile("ld.global.v2.u32 {%0, %1}, [%2];" : "=r"(bits.value[0]), "=r"(bits.value[1]) : "l"(from));
        } else if constexpr (Bytes == 4) {
            asm volatile("ld.global.u32 %0, [%1];" : "=r"(bits.value[0]) : "l"(from));
        } else if constexpr (Bytes == 2) {
            asm volatile("ld.global.u16 %0, [%1];" : "=h"(bits.value[0]) : "l"(from));
        } else {
            bits.value[0] = *static_cast<const std::uint8_t*>(from);
        }
#else
        std::memcpy(&bits, from, Bytes);
#endif
        return bits;
    }
    template <int Bytes>
    static RW_HD RW_INLINE void store(void* to, const vec_bits<Bytes>& bits) {
#if defined(RW_GPU_CODE)
        if constexpr (Bytes == 16) {
            asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(bits.value[0]), "r"(bits.value[1]),
                         "r"(bits.value[2]), "r"(bits.value[3])
                         : "memory");
        } else if constexpr (Bytes == 8) {
            asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(to), "r"(bits.value[0]), "r"(bits.value[1])
                         : "memory");
        } else if constexpr (Bytes == 4) {
            asm volatile("st.global.u32 [%0], %1;" ::"l"(to), "r"(bits.value[0]) : "memory");
        } else if constexpr (Bytes == 2) {
            asm volatile("st.global.u16 [%0], %1;" ::"l"(to), "h"(bits.value[0]) : "memory");
        } else {
            asm volatile("st.global.u8 [%0], %1;" ::"l"(to), "r"(std::uint32_t{bits.value[0]}) : "memory");
        }
#else
        std::memcpy(to, &bits, Bytes);
#endif
    }
};

namespace detail {

/// Widens the two elements of a word, the first in its lower half.
RW_HD RW_INLINE void widen(bf16 /*type*/, std::uint32_t word, float& first, float& second) {
    first = ropewalk::detail::bit_cast<float>(word << 16);
    second = ropewalk::detail::bit_cast<float>(word & 0xffff0000U);
}
RW_HD RW_INLINE void widen(f16 /*type*/, std::uint32_t word, float& first, float& second) {
    const auto low = static_cast<std::uint16_t>(word), high = static_cast<std::uint16_t>(word >> 16);
#if defined(RW_GPU_CODE)
    asm("cvt.f32.f16 %0, %1;" : "=f"(first) : "h"(low));
    asm("cvt.f32.f16 %0, %1;" : "=f"(second) : "h"(high));
#else
    first = ropewalk::detail::f16_to_float(low);
    second = ropewalk::detail::f16_to_float(high);
#endif
}

/// Widens four bytes to floats, the lowest byte first.
RW_HD RW_INLINE void widen_bytes(f8e4m3 /*type*/, std::uint32_t word, float* x) {
#if defined(RW_GPU_CODE) && RW_GPU_CODE >= 890
    const auto low = static_cast<std::uint16_t>(word), high = static_cast<std::uint16_t>(word >> 16);
    std::uint32_t halves[2];
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves[0]) : "h"(low));
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves[1]) : "h"(high));
    widen(f16{}, halves[0], x[0], x[1]);
    widen(f16{}, halves[1], x[2], x[3]);
#else
    RW_UNROLL
    for (int i = 0; i < 4; ++i) x[i] = ropewalk::detail::e4m3_format::value(static_cast<std::uint8_t>(word >> 8 * i));
#endif
}
/// The upper half of an f16 is an f8e5m2.
RW_HD RW_INLINE void widen_bytes(f8e5m2 /*type*/, std::uint32_t word, float* x) {
    widen(f16{}, (word & 0xffU) << 8 | (word & 0xff00U) << 16, x[0], x[1]);
    widen(f16{}, (word >> 8 & 0xff00U) | (word & 0xff000000U), x[2], x[3]);
}
RW_HD RW_INLINE void widen_bytes(std::int8_t /*type*/, std::uint32_t word, float* x) {
    RW_UNROLL
    for (int i = 0; i < 4; ++i) x[i] = static_cast<float>(static_cast<std::int8_t>(word >> 8 * i & 0xffU));
}

/// Rounds two floats to nearest even and packs them into a word. A device replaces every NaN by one bit pattern; the
/// host keeps the payload.
RW_HD RW_INLINE std::uint32_t narrow(bf16 /*type*/, float first, float second) {
#if defined(RW_GPU_CODE) && RW_GPU_CODE >= 800
    std::uint32_t word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
    return word;
#else
    return static_cast<std::uint32_t>(bf16(first).bits) | static_cast<std::uint32_t>(bf16(second).bits) << 16;
#endif
}
RW_HD RW_INLINE std::uint32_t narrow(f16 /*type*/, float first, float second) {
#if defined(RW_GPU_CODE) && RW_GPU_CODE >= 800
    std::uint32_t word;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
    return word;
#else
    return static_cast<std::uint32_t>(f16(first).bits) | static_cast<std::uint32_t>(f16(second).bits) << 16;
#endif
}

}  // namespace detail

/// The elements of one access as floats.
template <Element T, int Bytes>
struct vec {
    static constexpr int count = Bytes / static_cast<int>(sizeof(T));
    static_assert(count >= 1, "an access holds at least one element");
    float value[count];

    static RW_HD RW_INLINE vec widen(const vec_bits<Bytes>& bits) {
        vec result;
        if constexpr (sizeof(T) == 4) {
            RW_UNROLL
            for (int i = 0; i < count; ++i) result.value[i] = ropewalk::detail::bit_cast<float>(bits.value[i]);
        } else if constexpr (count == 1) {
            float unused;
            detail::widen(T{}, bits.value[0], result.value[0], unused);
        } else {
            RW_UNROLL
            for (int i = 0; i < count / 2; ++i)
                detail::widen(T{}, bits.value[i], result.value[2 * i], result.value[2 * i + 1]);
        }
        return result;
    }

    [[nodiscard]] RW_HD RW_INLINE vec_bits<Bytes> narrow() const {
        vec_bits<Bytes> bits;
        if constexpr (sizeof(T) == 4) {
            RW_UNROLL
            for (int i = 0; i < count; ++i) bits.value[i] = ropewalk::detail::bit_cast<std::uint32_t>(value[i]);
        } else if constexpr (count == 1) {
            bits.value[0] = static_cast<std::uint16_t>(detail::narrow(T{}, value[0], 0.0F));
        } else {
            RW_UNROLL
            for (int i = 0; i < count / 2; ++i) bits.value[i] = detail::narrow(T{}, value[2 * i], value[2 * i + 1]);
        }
        return bits;
    }
};

namespace detail {

/// Loads V elements as floats, in accesses of at most 16 bytes.
template <Element E, class Memory, int V>
RW_HD RW_INLINE void load_elements(const E* from, float (&x)[V]) {
    constexpr int bytes = V * static_cast<int>(sizeof(E)) < 16 ? V * static_cast<int>(sizeof(E)) : 16;
    using part = vec<E, bytes>;
    RW_UNROLL
    for (int done = 0; done < V; done += part::count) {
        const part values = part::widen(Memory::template load<bytes>(from + done));
        RW_UNROLL
        for (int i = 0; i < part::count; ++i) x[done + i] = values.value[i];
    }
}

/// Rounds V floats and stores them, in accesses of at most 16 bytes.
template <Element E, class Memory, int V>
RW_HD RW_INLINE void store_elements(E* to, const float (&x)[V]) {
    constexpr int bytes = V * static_cast<int>(sizeof(E)) < 16 ? V * static_cast<int>(sizeof(E)) : 16;
    using part = vec<E, bytes>;
    RW_UNROLL
    for (int done = 0; done < V; done += part::count) {
        part values;
        RW_UNROLL
        for (int i = 0; i < part::count; ++i) values.value[i] = x[done + i];
        Memory::template store<bytes>(to + done, values.narrow());
    }
}

}  // namespace detail

}  // namespace ropewalk::gpu
