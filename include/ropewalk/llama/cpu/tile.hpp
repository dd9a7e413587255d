// Tiles of consecutive keys or values of one head, as rows that a kernel reads.
#pragma once

#include "ropewalk/llama/cpu/cache_rows.hpp"

namespace ropewalk::llama::cpu::detail {

/// Tokens per tile. Tiles begin at multiples of it in every call.
inline constexpr std::int64_t tile_tokens = 128;

/// Keys or values: row i begins at data + i · stride. `scales`, one per row, multiply rows of int8 and are null for
/// other types.
template <class T>
struct kv_tile {
    const T* data = nullptr;
    std::int64_t stride = 0;
    const float* scales = nullptr;
    const T* next = nullptr;  ///< rows that are read after these; `data` if unknown
};

/// head_dim rounded up to whole registers of any width.
constexpr std::int64_t padded_width(std::int64_t head_dim) { return (head_dim + 15) / 16 * 16; }
/// Floats between rows of a widened tile. 16 more than needed, so that rows of a power of two use all sets of a cache.
constexpr std::int64_t tile_stride(std::int64_t head_dim) { return padded_width(head_dim) + 16; }

/// Widens `count` tokens from `first` on into `space`, with zeros after each row up to padded_width(). Prefetches the
/// tokens that are read next: `next_count` from `next_first` on.
template <class A>
RW_INLINE kv_tile<float> widened_tile(const cached_head& from, std::int64_t first, std::int64_t count, float* space,
                                      const cached_head& next, std::int64_t next_first, std::int64_t next_count) {
    constexpr std::int64_t line = 64;
    const std::int64_t width = from.layout.head_dim, stride = tile_stride(width);
    const std::int64_t bytes = width * size_of(from.layout.type);
    for (std::int64_t i = 0; i < count; ++i) {
        if (i < next_count) {
            const std::byte* const row = next.bytes(next_first + i);
            for (std::int64_t at = 0; at < bytes; at += line) prefetch_for_reading(row + at);
        }
        load_row<A>(from, first + i, space + i * stride);
        for (std::int64_t at = width; at < padded_width(width); ++at) space[i * stride + at] = 0;
    }
    return {space, stride, nullptr, space};
}

/// A tile in a page, which must hold all of it.
template <class T>
RW_INLINE kv_tile<T> tile_in_place(const cached_head& from, std::int64_t first) {
    const T* const rows = from.template row<const T>(first);
    return {rows, from.layout.head_dim, std::is_same_v<T, std::int8_t> ? from.scale(first) : nullptr, rows};
}

/// Queries of an item, their results so far, and room for the scores of a tile. The prefill tile has
/// q and out [depth, queries], the decode tile [queries, width].
struct query_state {
    float* q = nullptr;        ///< scaled
    float* out = nullptr;      ///< not yet divided by row_sum
    float* row_max = nullptr;  ///< largest score per query
    float* row_sum = nullptr;  ///< of e^(score − row_max), per query
    float* visible = nullptr;  ///< keys of the tile that a query sees, if any is masked
    float* scores = nullptr;
    std::int64_t width = 0;
    std::int64_t depth = 0;  ///< elements of a key that are multiplied: head_dim, or whole registers
};

/// row_max before the first key. Finite, so that the difference of two maxima is a number.
inline constexpr float no_score = -0x1.fffffep+127F;

}  // namespace ropewalk::llama::cpu::detail
