// Sequences of a call: the rows of their tokens, and the cache pages of their keys and values.
#pragma once

#include <span>

#include "ropewalk/gpu/cache_store.hpp"
#include "ropewalk/llama/batch.hpp"
#include "ropewalk/llama/gpu/lanes.hpp"

namespace ropewalk::llama::gpu {

using ropewalk::gpu::cache_slot, ropewalk::gpu::cache_slots, ropewalk::gpu::cache_tensor, ropewalk::gpu::kv_cache;

/// Pages of the sequences of a call: page s without a table, else table[s, entry / page_size].
struct page_table {
    const std::int32_t* table = nullptr;  ///< [sequences, most_pages], device memory
    std::int64_t most_pages = 0, stride = 0;
};

/// Contiguous [sequences, most_pages]. Throws if the rows would differ in length.
inline page_table pages_of(std::span<const std::int32_t> table, std::int64_t sequences) {
    const auto size = static_cast<std::int64_t>(table.size());
    RW_EXPECTS(sequences > 0 && size % sequences == 0, "{} pages cannot be split into {} equal rows", size, sequences);
    return {table.data(), size / sequences, size / sequences};
}

/// Ragged sequences whose lengths are in device memory, so that a launch recorded once serves a growing cache. Token t
/// of sequence s is row starts[s] + t of the tensors of the call and entry past[s] + t of the cache of the sequence.
///
/// The values are not checked. Starts that do not ascend, or pasts beyond the cache, give meaningless results, but no
/// access leaves the memory of the call.
struct sequences {
    const std::int32_t* starts = nullptr;  ///< [count + 1], ends with the tokens of the call; null: one token each
    const std::int32_t* past = nullptr;    ///< [count] tokens cached before the call; null: none
    std::int64_t count = 0;
    std::int64_t most_tokens = 1;  ///< of one sequence in the call; sets the size of launches
    page_table pages;
};

namespace detail {

RW_HD RW_INLINE std::int64_t within(std::int64_t x, std::int64_t low, std::int64_t high) {
    return x < low ? low : x > high ? high : x;
}

}  // namespace detail

/// The sequences of a call as a kernel reads them, valid for any values in device memory.
struct sequence_reader {
    const std::int32_t* starts = nullptr;
    const std::int32_t* past = nullptr;
    std::int64_t count = 0;
    std::int64_t tokens = 0;    ///< rows of the call
    std::int64_t capacity = 0;  ///< cache entries per sequence
    ropewalk::gpu::slot_reader slots;

    [[nodiscard]] RW_HD RW_INLINE sequence_rows rows_of(std::int64_t sequence) const {
        sequence_rows rows{sequence, 1, 0};
        if (starts != nullptr) {
            rows.first = detail::within(starts[sequence], 0, tokens);
            rows.tokens = detail::within(starts[sequence + 1], rows.first, tokens) - rows.first;
        }
        if (past != nullptr) rows.past = detail::within(past[sequence], 0, capacity);
        return rows;
    }

    /// Returns the sequence of a row, found by bisection, or −1.
    [[nodiscard]] RW_HD RW_INLINE std::int64_t sequence_of(std::int64_t row) const {
        if (starts == nullptr) return row < count ? row : -1;
        std::int64_t low = 0, high = count;
        if (row < starts[0] || row >= starts[high]) return -1;
        while (high - low > 1) {
            const std::int64_t middle = low + (high - low) / 2;
            (starts[middle] <= row ? low : high) = middle;
        }
        return low;
    }

    /// Returns the slot of an entry of a sequence; page −1 if the cache has no such page.
    [[nodiscard]] RW_HD RW_INLINE cache_slot slot_of(std::int64_t sequence, std::int64_t entry) const {
        const cache_slot slot = ropewalk::detail::slot_of_entry(slots, sequence, entry);
        return slot.page >= 0 && slot.page < slots.pages ? slot : cache_slot{};
    }
};

namespace detail {

RW_HD RW_INLINE std::int64_t element_of(const cache_tensor& cache, const cache_slot& slot, std::int64_t head) {
    return slot.page * cache.stride_page + slot.entry * cache.stride_token + head * cache.stride_head;
}
/// The int8 scale of a head.
template <class Memory>
RW_HD RW_INLINE float scale_of(const cache_tensor& cache, const cache_slot& slot, std::int64_t head) {
    return load_one<float, Memory>(cache.scales + slot.page * cache.scale_stride_page +
                                   slot.entry * cache.scale_stride_token + head * cache.scale_stride_head);
}

/// Iterates over the slots of consecutive entries, with one division per page.
class entry_cursor {
public:
    RW_HD RW_INLINE entry_cursor(const sequence_reader& batch, std::int64_t sequence, std::int64_t entry)
        : batch_(batch), sequence_(sequence), entry_(entry), slot_(batch.slot_of(sequence, entry)) {}

    [[nodiscard]] RW_HD RW_INLINE const cache_slot& slot() const { return slot_; }
    RW_HD RW_INLINE void next() {
        ++entry_, ++slot_.entry;
        if (slot_.page < 0 || slot_.entry >= batch_.slots.page_size) slot_ = batch_.slot_of(sequence_, entry_);
    }

private:
    const sequence_reader& batch_;
    std::int64_t sequence_, entry_;
    cache_slot slot_;
};

/// A cache whose `scale` is the factor of all of its elements: 1 unless the type is f8e4m3.
inline cache_tensor with_factor(cache_tensor cache) {
    RW_EXPECTS(cache.type != cache_type::f8e5m2 && cache.scale_at == nullptr,
               "attention reads caches of f32, f16, bf16, f8e4m3 with a scale on the host, and i8; got {}{}",
               to_string(cache.type), cache.scale_at == nullptr ? "" : " with a scale in device memory");
    if (cache.type != cache_type::f8e4m3) cache.scale = 1;
    return cache;
}

inline sequence_reader reader_of(const sequences& batch, std::int64_t tokens, const cache_tensor& cache) {
    const page_table& pages = batch.pages;
    sequence_reader reader;
    reader.starts = batch.starts, reader.past = batch.past, reader.count = batch.count, reader.tokens = tokens;
    reader.capacity = pages.table == nullptr ? cache.page_size : pages.most_pages * cache.page_size;
    reader.slots.source = pages.table == nullptr ? cache_slots::kind::by_sequence : cache_slots::kind::page_table;
    reader.slots.table = pages.table, reader.slots.sequences = batch.count, reader.slots.max_pages = pages.most_pages;
    reader.slots.stride_sequence = pages.stride;
    reader.slots.pages = cache.pages, reader.slots.page_size = cache.page_size;
    return reader;
}

inline void check_batch(const sequences& batch, const cache_tensor& cache, std::int64_t tokens) {
    const page_table& pages = batch.pages;
    RW_EXPECTS(batch.count >= 0 && batch.most_tokens >= 0,
               "sequences and their tokens must not be negative, got {} and {}", batch.count, batch.most_tokens);
    RW_EXPECTS(batch.starts != nullptr || (batch.count == tokens && batch.most_tokens >= 1),
               "without starts every sequence has one token, got {} sequences and {} tokens", batch.count, tokens);
    for (const std::int32_t* const entries : {batch.starts, batch.past, pages.table})
        RW_EXPECTS(reinterpret_cast<std::uintptr_t>(entries) % sizeof(std::int32_t) == 0,
                   "starts, past and page tables must be aligned to the 4 bytes of an entry, got {}", entries);
    RW_EXPECTS(pages.table != nullptr || cache.pages >= batch.count,
               "a cache of {} pages has no page for each of {} sequences", cache.pages, batch.count);
    RW_EXPECTS(
        pages.table == nullptr || (pages.most_pages >= 0 && (batch.count <= 1 || pages.stride >= pages.most_pages)),
        "a page table [{}, {}] cannot have stride {}", batch.count, pages.most_pages, pages.stride);
}

}  // namespace detail

}  // namespace ropewalk::llama::gpu
