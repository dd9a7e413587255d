// Validation of cache slots in host memory.
#pragma once

#include "ropewalk/core/error.hpp"
#include "ropewalk/rotation/slot_reader.hpp"

namespace ropewalk::detail {
inline namespace RW_ISA {

/// Checks the lists of pages of all sequences.
inline void check_page_list(const slot_reader& slots) {
    RW_EXPECTS(slots.starts[0] >= 0, "indptr must not be negative, got {} at entry 0", slots.starts[0]);
    for (std::int64_t s = 0; s < slots.sequences; ++s) {
        const std::int64_t first = slots.starts[s], end = slots.starts[s + 1];
        RW_EXPECTS(first <= end, "indptr must ascend, got {} after {} at entry {}", end, first, s + 1);
        if (slots.last_page_len == nullptr || first == end) continue;
        const std::int64_t last = slots.last_page_len[s];
        RW_EXPECTS(last >= 1 && last <= slots.page_size,
                   "last_page_len of sequence {} must lie within 1 and {}, got {}", s, slots.page_size, last);
    }
    const std::int64_t end = slots.starts[slots.sequences];
    RW_EXPECTS(end <= slots.max_pages, "indptr ends with {} but there are {} pages", end, slots.max_pages);
}

/// The number of pages of a sequence.
inline std::int64_t pages_of_sequence(const slot_reader& slots, std::int64_t sequence) {
    if (slots.source == cache_slots::kind::by_sequence) return 1;
    if (slots.source == cache_slots::kind::page_table) return slots.max_pages;
    return std::int64_t{slots.starts[sequence + 1]} - slots.starts[sequence];
}

/// Checks the number of the slot of one token.
inline void check_slot_number(const slot_reader& slots, std::int64_t index) {
    const std::int64_t number = slots.source == cache_slots::kind::mapping32
                                    ? static_cast<const std::int32_t*>(slots.mapping)[index]
                                    : static_cast<const std::int64_t*>(slots.mapping)[index];
    RW_EXPECTS(number < 0 || number / slots.page_size < slots.pages,
               "token {} has slot {}, but the cache has {} pages of {} slots", index, number, slots.pages,
               slots.page_size);
}

/// Checks the entry of one token, and the page that holds it.
inline void check_entry(const slot_reader& slots, std::int64_t row, std::int64_t token) {
    const std::int64_t sequence = slots.entry_reader.ragged() ? slots.entry_reader.sequence_of(token) : row;
    const std::int64_t pages = pages_of_sequence(slots, sequence);
    std::int64_t entry = 0;
    if (slots.last_page_len == nullptr) {
        entry = slots.entry_reader.index(row, token);
        if (entry < 0) return;
    } else {
        entry = last_entry(slots, sequence, token);
        RW_EXPECTS(
            entry >= 0, "sequence {} has {} tokens in the call, but its {} pages with last_page_len {} hold {} entries",
            sequence, slots.entry_reader.sequence_start(sequence + 1) - slots.entry_reader.sequence_start(sequence),
            pages, slots.last_page_len[sequence],
            pages == 0 ? 0 : (pages - 1) * slots.page_size + slots.last_page_len[sequence]);
    }
    const quotient parts = divide(entry, slots.page_size);
    RW_EXPECTS(parts.whole < pages, "token {} has entry {} of sequence {}, which has {} pages of {} entries", token,
               entry, sequence, pages, slots.page_size);
    const std::int64_t page = slot_of_entry(slots, sequence, entry).page;
    RW_EXPECTS(page >= 0 && page < slots.pages,
               "token {} has page {}, number {} of sequence {}, but the cache has {} pages", token, page, parts.whole,
               sequence, slots.pages);
}

/// Checks the slots of all tokens [batch, tokens], in host memory. Negative slots and entries skip a token. Throws
/// where any other slot lies outside the cache.
inline void check_slot_values(const slot_reader& slots, std::int64_t batch, std::int64_t tokens) {
    using kind = cache_slots::kind;
    if (slots.source == kind::none) return;
    if (slots.source == kind::page_list) check_page_list(slots);
    const bool by_number = slots.source == kind::mapping32 || slots.source == kind::mapping64;
    for (std::int64_t row = 0; row < batch; ++row) {
        for (std::int64_t token = 0; token < tokens; ++token)
            by_number ? check_slot_number(slots, row * tokens + token) : check_entry(slots, row, token);
    }
}

}  // namespace RW_ISA
}  // namespace ropewalk::detail
