// Reader of the cache slots of a validated call, on the CPU and on a GPU.
#pragma once

#include "ropewalk/core/divide.hpp"
#include "ropewalk/rotation/cache.hpp"
#include "ropewalk/rotation/position_reader.hpp"

namespace ropewalk {

/// Plain data that tells a kernel the cache slot of each token.
struct slot_reader : cache_slots {
    position_reader entry_reader{};  ///< of `entries`
    std::int64_t pages = 0, page_size = 1;
};

/// A page and the entry in that page. Page −1: no slot.
struct cache_slot {
    std::int64_t page = -1;
    std::int64_t entry = 0;
};

namespace detail {

/// Splits number n, of a slot or of an entry of a sequence, into a page and the entry in that page.
RW_HD RW_INLINE cache_slot split_by_page(std::int64_t n, std::int64_t page_size) {
    if (n < 0) return {};
    const quotient parts = divide(n, page_size);
    return {parts.whole, parts.rest};
}

/// The slot of entry `entry` of a sequence, counted over all of its pages. Its page may lie outside the cache.
RW_HD RW_INLINE cache_slot slot_of_entry(const slot_reader& slots, std::int64_t sequence, std::int64_t entry) {
    if (entry < 0) return {};
    if (slots.source == cache_slots::kind::by_sequence) return {entry < slots.page_size ? sequence : -1, entry};
    cache_slot slot = split_by_page(entry, slots.page_size);
    if (sequence >= slots.sequences) return {};
    if (slots.source == cache_slots::kind::page_list) {
        const std::int64_t index = slots.starts[sequence] + slot.page;
        if (index < 0 || index >= slots.starts[sequence + 1] || index >= slots.max_pages) return {};
        slot.page = slots.table[index];
        return slot;
    }
    if (slot.page >= slots.max_pages) return {};
    slot.page = slots.table[sequence * slots.stride_sequence + slot.page];
    return slot;
}

/// The entry of a token that is one of the last of its sequence: see cache_slots::last_page_len.
RW_HD RW_INLINE std::int64_t last_entry(const slot_reader& slots, std::int64_t sequence, std::int64_t token) {
    if (sequence >= slots.sequences) return -1;
    const std::int64_t full_pages = std::int64_t{slots.starts[sequence + 1]} - slots.starts[sequence] - 1;
    const std::int64_t length = full_pages * slots.page_size + slots.last_page_len[sequence];
    return length - (slots.entry_reader.sequence_start(sequence + 1) - token);
}

}  // namespace detail

/// The slot of a token, or none where it lies outside the cache. Never reads outside the arguments, even where they
/// hold invalid slots.
RW_HD RW_INLINE cache_slot slot_of_token(const slot_reader& slots, std::int64_t row, std::int64_t token,
                                         std::int64_t tokens) {
    cache_slot slot;
    const std::int64_t index = row * tokens + token;
    if (slots.source == cache_slots::kind::mapping32) {
        slot = detail::split_by_page(static_cast<const std::int32_t*>(slots.mapping)[index], slots.page_size);
    } else if (slots.source == cache_slots::kind::mapping64) {
        slot = detail::split_by_page(static_cast<const std::int64_t*>(slots.mapping)[index], slots.page_size);
    } else {
        const std::int64_t sequence = slots.entry_reader.ragged() ? slots.entry_reader.sequence_of(token) : row;
        const std::int64_t entry = slots.last_page_len == nullptr ? slots.entry_reader.index(row, token)
                                                                  : detail::last_entry(slots, sequence, token);
        slot = detail::slot_of_entry(slots, sequence, entry);
    }
    return slot.page >= 0 && slot.page < slots.pages ? slot : cache_slot{};
}

}  // namespace ropewalk
