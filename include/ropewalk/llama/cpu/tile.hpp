// Consecutive keys or values of one head as rows that a kernel can read.
#pragma once

#include "ropewalk/llama/cpu/cache_rows.hpp"

namespace ropewalk::llama::cpu::detail {

/// Keys that attention looks at before it looks at the next. Tiles begin at multiples of it, whoever asks for them.
inline constexpr std::int64_t tile_tokens = 128;

/// Row i begins at data + i · stride. `scales`, one a row, multiply rows of int8; null elsewhere.
template <class T>
struct tile {
    const T* data = nullptr;
    std::int64_t stride = 0;
    const float* scales = nullptr;
    const T* next = nullptr;  ///< what is read after it, as wide; itself where that is not known
};

/// Whole registers, and so many of them that rows of a power of two do not all share one set of a cache.
template <class A>
constexpr std::int64_t padded_width(std::int64_t head_dim) {
    constexpr std::int64_t line = 16;
    return (head_dim + line - 1) / line * line;
}
template <class A>
constexpr std::int64_t tile_stride(std::int64_t head_dim) {
    return padded_width<A>(head_dim) + 16;
}
template <class A>
constexpr std::int64_t tile_floats(std::int64_t head_dim) {
    return tile_tokens * tile_stride<A>(head_dim);
}

/// `count` tokens from `first` on as floats in `space`, zeros behind each row up to padded_width(). What is read next,
/// `soon` tokens from `soon_first` on, is asked for meanwhile.
template <class A>
RW_INLINE tile<float> widened_tile(const cached_head& from, std::int64_t first, std::int64_t count, float* space,
                                   const cached_head& next, std::int64_t soon_first, std::int64_t soon) {
    constexpr std::int64_t line = 64;
    const std::int64_t width = from.layout.head_dim, stride = tile_stride<A>(width);
    const std::int64_t bytes = width * size_of(from.layout.type);
    for (std::int64_t i = 0; i < count; ++i) {
        if (i < soon) {
            const std::byte* const row = next.bytes(soon_first + i);
            for (std::int64_t at = 0; at < bytes; at += line) ask_for_line(row + at);
        }
        widen_run<A>(from, first + i, 1, space + i * stride, stride);
        for (std::int64_t at = width; at < padded_width<A>(width); ++at) space[i * stride + at] = 0;
    }
    return {space, stride, nullptr, space};
}

/// Whether a page holds all of the tile, so that it can be read where it lies.
RW_INLINE bool lies_in_one_page(const cached_head& from, std::int64_t first, std::int64_t count) {
    return from.run(first, count) == count;
}

template <class T>
RW_INLINE tile<T> tile_in_place(const cached_head& from, std::int64_t first) {
    const T* const rows = from.template row<const T>(first);
    return {rows, from.layout.head_dim, std::is_same_v<T, std::int8_t> ? from.scale(first) : nullptr, rows};
}

}  // namespace ropewalk::llama::cpu::detail
