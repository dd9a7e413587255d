// Kernels over the tokens of a call: their positions and cache slots, and the count of cached tokens.
#pragma once

#include "ropewalk/llama/gpu/kernel.hpp"
#include "ropewalk/llama/gpu/sequences.hpp"

namespace ropewalk::llama::gpu {

/// Parameters of the kernel that finds the positions and the cache slots of tokens, which rotation and append read.
/// One thread handles one token.
struct locate_params : launch_size {
    sequence_reader batch;
    std::int64_t* positions = nullptr;  ///< [tokens]
    std::int64_t* slots = nullptr;      ///< [tokens], page · page_size + token of the page; −1: none

    template <bool /*Wide*/, class Memory>
    RW_HD RW_INLINE void run_thread(std::int64_t token) const {
        if (token >= batch.tokens) return;
        const std::int64_t sequence = batch.sequence_of(token);
        const sequence_rows rows = sequence < 0 ? sequence_rows{token, 0, 0} : batch.rows_of(sequence);
        const std::int64_t entry = rows.past + token - rows.first;
        cache_slot slot;
        if (sequence >= 0) slot = batch.slot_of(sequence, entry);
        positions[token] = entry;
        slots[token] = slot.page < 0 ? -1 : slot.page * batch.slots.page_size + slot.entry;
    }
};

inline locate_params make_locate(const sequences& batch, std::int64_t tokens, const cache_tensor& cache,
                                 std::int64_t* positions, std::int64_t* slots) {
    detail::check_batch(batch, cache, tokens);
    locate_params params;
    params.batch = detail::reader_of(batch, tokens, cache);
    params.positions = positions, params.slots = slots;
    params.set_items(batch.count == 0 ? 0 : tokens);
    return params;
}

/// Parameters of the lookup of drawn positions: numbers[i] = drawn[positions[i]]. Indices beyond the end read the last
/// entry. One thread handles one token.
struct draw_params : launch_size {
    const std::int64_t* positions = nullptr;  ///< [tokens]
    const fixed_position* drawn = nullptr;    ///< [count], at least one
    fixed_position* numbers = nullptr;        ///< [tokens]
    std::int64_t tokens = 0, count = 0;

    template <bool /*Wide*/, class Memory>
    RW_HD RW_INLINE void run_thread(std::int64_t token) const {
        if (token < tokens) numbers[token] = drawn[detail::within(positions[token], 0, count - 1)];
    }
};

inline draw_params make_draw(std::span<const std::int64_t> positions, std::span<const fixed_position> drawn,
                             fixed_position* numbers) {
    RW_EXPECTS(!drawn.empty(), "no positions are drawn for {} tokens", positions.size());
    draw_params params;
    params.positions = positions.data(), params.drawn = drawn.data(), params.numbers = numbers;
    params.tokens = std::ssize(positions), params.count = std::ssize(drawn);
    params.set_items(params.tokens);
    return params;
}

/// Parameters of past[s] += the tokens of the call, which ends a recorded step so that it can be replayed. One thread
/// handles one sequence.
struct advance_params : launch_size {
    sequence_reader batch;
    std::int32_t* past = nullptr;

    template <bool /*Wide*/, class Memory>
    RW_HD RW_INLINE void run_thread(std::int64_t sequence) const {
        if (sequence >= batch.count) return;
        const sequence_rows rows = batch.rows_of(sequence);
        past[sequence] = static_cast<std::int32_t>(detail::within(rows.past + rows.tokens, 0, batch.capacity));
    }
};

inline advance_params make_advance(const sequences& batch, std::int64_t tokens, const cache_tensor& cache,
                                   std::int32_t* past) {
    detail::check_batch(batch, cache, tokens);
    RW_EXPECTS(past != nullptr && past == batch.past, "advance() must write the pasts that its sequences read");
    advance_params params;
    params.batch = detail::reader_of(batch, tokens, cache);
    RW_EXPECTS(params.batch.capacity < std::int64_t{1} << 31,
               "a sequence of {} entries exceeds the 32 bits of its count", params.batch.capacity);
    params.past = past;
    params.set_items(batch.count);
    return params;
}

}  // namespace ropewalk::llama::gpu
