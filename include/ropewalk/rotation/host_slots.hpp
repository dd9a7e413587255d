// Cache slots of a call in host memory: looked up and checked before anything is written.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "ropewalk/rotation/slot_checks.hpp"

namespace ropewalk {

namespace detail {
inline namespace RW_ISA {

/// Checks that no two tokens have the same slot.
inline void check_slots_differ(const std::vector<cache_slot>& slots, std::int64_t page_size) {
    std::vector<std::pair<std::int64_t, std::int64_t>> order;  // slot numbers and their tokens
    order.reserve(slots.size());
    bool ascending = true;
    for (std::size_t i = 0; i < slots.size(); ++i) {
        if (slots[i].page < 0) continue;
        const std::int64_t number = slots[i].page * page_size + slots[i].entry;
        ascending = ascending && (order.empty() || number > order.back().first);
        order.emplace_back(number, static_cast<std::int64_t>(i));
    }
    if (ascending) return;
    std::sort(order.begin(), order.end());
    for (std::size_t i = 1; i < order.size(); ++i)
        RW_EXPECTS(order[i - 1].first != order[i].first, "tokens {} and {} have the same slot: entry {} of page {}",
                   order[i - 1].second, order[i].second, order[i].first % page_size, order[i].first / page_size);
}

}  // namespace RW_ISA
}  // namespace detail

inline namespace RW_ISA {

/// The slots of all tokens [batch, tokens], read from host memory. Page −1: no slot, because of a negative number.
/// Throws where a slot lies outside the cache, and where two tokens have the same one.
inline std::vector<cache_slot> read_slots(const slot_reader& slots, std::int64_t batch, std::int64_t tokens) {
    detail::check_slot_values(slots, batch, tokens);
    std::vector<cache_slot> result;
    result.reserve(static_cast<std::size_t>(batch * tokens));
    for (std::int64_t row = 0; row < batch; ++row) {
        for (std::int64_t token = 0; token < tokens; ++token)
            result.push_back(slot_of_token(slots, row, token, tokens));
    }
    detail::check_slots_differ(result, slots.page_size);
    return result;
}

}  // namespace RW_ISA
}  // namespace ropewalk
