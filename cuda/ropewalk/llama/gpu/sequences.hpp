// The sequences of a call, where their tokens lie in it, and where a cache has their keys and values.
#pragma once

#include "ropewalk/gpu/cache_store.hpp"
#include "ropewalk/llama/gpu/rows.hpp"

namespace ropewalk::llama::gpu {

/// Ragged sequences whose lengths device memory holds, so that a launch recorded once serves a growing cache. Token t
/// of sequence s is row starts[s] + t of the call's tensors and entry past[s] + t of the sequence's cache.
///
/// No check has seen the values. Starts that do not ascend, or pasts beyond the cache, give results that make no sense,
/// but nothing is read or written beside what the call was given.
struct sequences {
    const std::int32_t* starts = nullptr;  ///< [count + 1], ends with the call's tokens; null: one token each
    const std::int32_t* past = nullptr;    ///< [count] tokens cached before those of the call; null: none
    std::int64_t count = 0;
    std::int64_t most_tokens = 1;  ///< of one sequence in this call: what a launch has room for
    std::int64_t most_keys = 0;    ///< past and new of one sequence, at most; 0: what the cache has room for
};

/// Which pages of a cache a sequence has: page s where there is no table, else table[s, entry / page_size].
struct page_table {
    const std::int32_t* table = nullptr;  ///< [sequences, most_pages], device memory
    std::int64_t most_pages = 0, stride = 0;
};

/// Contiguous [sequences, most_pages]. Throws where the rows would differ in length.
inline page_table pages_of(std::span<const std::int32_t> table, std::int64_t sequences) {
    const auto size = static_cast<std::int64_t>(table.size());
    RW_EXPECTS(sequences > 0 && size % sequences == 0, "{} pages make no {} rows of one length", size, sequences);
    return {table.data(), size / sequences, size / sequences};
}

/// The sequences of a call as a kernel reads them.
struct sequence_source {
    const std::int32_t* starts = nullptr;
    const std::int32_t* past = nullptr;
    std::int64_t count = 0;
    std::int64_t tokens = 0;    ///< rows of the call
    std::int64_t capacity = 0;  ///< entries of a sequence in the cache
};

/// One of them: rows [first, first + tokens), entries from `past` on.
struct sequence_rows {
    std::int64_t first = 0, tokens = 0, past = 0;
};

namespace detail {

RW_HD RW_INLINE std::int64_t within(std::int64_t x, std::int64_t low, std::int64_t high) {
    return x < low ? low : x > high ? high : x;
}

/// A sequence of a call, whatever the memory holds.
RW_HD RW_INLINE sequence_rows rows_of_sequence(const sequence_source& batch, std::int64_t sequence) {
    sequence_rows rows{sequence, 1, 0};
    if (batch.starts != nullptr) {
        rows.first = within(batch.starts[sequence], 0, batch.tokens);
        rows.tokens = within(batch.starts[sequence + 1], rows.first, batch.tokens) - rows.first;
    }
    if (batch.past != nullptr) rows.past = within(batch.past[sequence], 0, batch.capacity);
    return rows;
}

/// The sequence of a row, by bisection; −1: none.
RW_HD RW_INLINE std::int64_t sequence_of_row(const sequence_source& batch, std::int64_t row) {
    if (batch.starts == nullptr) return row < batch.count ? row : -1;
    std::int64_t low = 0, high = batch.count;
    if (row < batch.starts[0] || row >= batch.starts[high]) return -1;
    while (high - low > 1) {
        const std::int64_t middle = low + (high - low) / 2;
        (batch.starts[middle] <= row ? low : high) = middle;
    }
    return low;
}

}  // namespace detail

/// Keys or values of a cache as a kernel reads them.
struct cache_source {
    const void* data = nullptr;
    cache_type type = cache_type::f32;
    std::int64_t page = 0, token = 0, head = 0;  ///< elements
    float scale = 1;                             ///< f8e4m3
    const float* scales = nullptr;               ///< i8
    std::int64_t scale_page = 0, scale_token = 0, scale_head = 0;
};

namespace detail {

RW_HD RW_INLINE std::int64_t element_of(const cache_source& from, const cache_slot& at, std::int64_t head) {
    return at.page * from.page + at.token * from.token + head * from.head;
}
/// What the elements of a head are multiplied by, beside `scale`.
template <class Memory>
RW_HD RW_INLINE float scale_of(const cache_source& from, const cache_slot& at, std::int64_t head) {
    return load_one<float, Memory>(from.scales + at.page * from.scale_page + at.token * from.scale_token +
                                   head * from.scale_head);
}

/// The place of an entry of a sequence; none where the cache has no such page.
RW_HD RW_INLINE cache_slot place_in_cache(const slot_reader& pages, std::int64_t sequence, std::int64_t entry) {
    const cache_slot place = ropewalk::gpu::detail::slot_of_entry(pages, sequence, entry);
    return place.page >= 0 && place.page < pages.pages ? place : cache_slot{};
}

/// The places of entries one after the other, without a division each.
class entry_cursor {
public:
    RW_HD RW_INLINE entry_cursor(const slot_reader& pages, std::int64_t sequence, std::int64_t entry)
        : pages_(pages), sequence_(sequence), entry_(entry), place_(place_in_cache(pages, sequence, entry)) {}

    [[nodiscard]] RW_HD RW_INLINE const cache_slot& place() const { return place_; }
    RW_HD RW_INLINE void next() {
        ++entry_, ++place_.token;
        if (place_.page < 0 || place_.token >= pages_.page_size) place_ = place_in_cache(pages_, sequence_, entry_);
    }

private:
    const slot_reader& pages_;
    std::int64_t sequence_, entry_;
    cache_slot place_;
};

inline cache_source source_of(const cache_tensor& cache) {
    return {cache.data,
            cache.type,
            cache.stride_page,
            cache.stride_token,
            cache.stride_head,
            cache.type == cache_type::f8e4m3 ? cache.scale : 1.0F,
            cache.scales,
            cache.scale_stride_page,
            cache.scale_stride_token,
            cache.scale_stride_head};
}

/// Entries that one sequence has room for.
inline std::int64_t capacity_of(const cache_tensor& cache, const page_table& pages) {
    return pages.table == nullptr ? cache.page_size : pages.most_pages * cache.page_size;
}

inline slot_reader source_of(const cache_tensor& cache, const page_table& pages, std::int64_t sequences) {
    slot_reader made;
    made.source = pages.table == nullptr ? cache_slots::kind::by_sequence : cache_slots::kind::page_table;
    made.table = pages.table, made.sequences = sequences, made.max_pages = pages.most_pages;
    made.stride_sequence = pages.stride, made.pages = cache.pages, made.page_size = cache.page_size;
    return made;
}

inline sequence_source source_of(const sequences& batch, std::int64_t tokens, std::int64_t capacity) {
    return {batch.starts, batch.past, batch.count, tokens, capacity};
}

inline void check_batch(const sequences& batch, const page_table& pages, const cache_tensor& cache,
                        std::int64_t tokens) {
    RW_EXPECTS(batch.count >= 0 && batch.most_tokens >= 0 && batch.most_keys >= 0,
               "sequences, their tokens and keys must not be negative, got {}, {} and {}", batch.count,
               batch.most_tokens, batch.most_keys);
    RW_EXPECTS(batch.starts != nullptr || (batch.count == tokens && batch.most_tokens >= 1),
               "without starts every sequence has one token, got {} sequences and {} tokens", batch.count, tokens);
    for (const std::int32_t* const entries : {batch.starts, batch.past, pages.table})
        RW_EXPECTS(reinterpret_cast<std::uintptr_t>(entries) % sizeof(std::int32_t) == 0,
                   "starts, past and page tables are aligned to the 4 bytes of an entry, got {}", entries);
    RW_EXPECTS(pages.table != nullptr || cache.pages >= batch.count,
               "a cache of {} pages has no page for each of {} sequences", cache.pages, batch.count);
    RW_EXPECTS(
        pages.table == nullptr || (pages.most_pages >= 0 && (batch.count <= 1 || pages.stride >= pages.most_pages)),
        "a page table [{}, {}] of stride {} makes no sense", batch.count, pages.most_pages, pages.stride);
}

}  // namespace detail

}  // namespace ropewalk::llama::gpu
