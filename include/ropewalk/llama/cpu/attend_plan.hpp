// Division of an attention call into items: some queries of one key head over some of the keys.
#pragma once

#include "ropewalk/llama/cpu/kernels.hpp"
#include "ropewalk/llama/cpu/simd.hpp"

namespace ropewalk::llama::cpu::detail {

// None of these depends on the number of threads, so results do not either.
/// Queries per item, about: enough that widening the tiles of a head is cheap.
inline constexpr std::int64_t item_rows = 128;
/// Keys per item if the keys are split, a multiple of tile_tokens.
inline constexpr std::int64_t split_keys = 1024;
/// Largest number of queries over all heads whose keys are split. More queries occupy the threads without it.
inline constexpr std::int64_t max_split_rows = 256;

/// Queries below which the decode tile is faster than a partly empty prefill tile.
template <class A>
inline constexpr std::int64_t decode_rows = lane_count<A> * 3 / 4;

/// Division of one sequence of a call.
struct sequence_plan {
    std::int64_t group = 1;         ///< query heads per key head
    std::int64_t block_tokens = 1;  ///< tokens per item
    std::int64_t blocks = 0, splits = 1, items = 0;
    std::int64_t partial_floats = 0;  ///< floats per item if the keys are split

    /// Floats of a query's partial result: its elements, the largest score and the sum of weights.
    static RW_INLINE std::int64_t row_floats(std::int64_t head_dim) { return head_dim + 2; }

    static RW_INLINE sequence_plan of(const attend_params& params, const paged_rows& sequence) {
        sequence_plan plan;
        plan.group = params.heads / params.layout.kv_heads;
        plan.block_tokens = plan.group < item_rows ? item_rows / plan.group : 1;
        plan.blocks = (sequence.tokens + plan.block_tokens - 1) / plan.block_tokens;
        if (sequence.tokens * params.heads <= max_split_rows)
            plan.splits = (sequence.past + sequence.tokens + split_keys - 1) / split_keys;
        plan.items = plan.blocks * plan.splits * params.layout.kv_heads;
        const std::int64_t tokens = sequence.tokens < plan.block_tokens ? sequence.tokens : plan.block_tokens;
        if (plan.splits > 1) plan.partial_floats = tokens * plan.group * row_floats(params.layout.head_dim);
        return plan;
    }
};

struct attend_item {
    const paged_rows* sequence = nullptr;
    std::int64_t group = 1;
    std::int64_t head = 0;                ///< of keys
    std::int64_t token = 0, tokens = 0;   ///< of the sequence's rows in the call
    std::int64_t first_key = 0, end = 0;  ///< keys of this item
    float* partial = nullptr;             ///< partial results; null if the keys are not split

    [[nodiscard]] RW_INLINE std::int64_t rows() const { return tokens * group; }
    /// Number of keys that query `row` sees.
    [[nodiscard]] RW_INLINE std::int64_t visible(std::int64_t row) const {
        return sequence->past + token + row / group + 1;
    }
    /// Offset of query `row` in q and out.
    [[nodiscard]] RW_INLINE std::int64_t offset(const attend_params& params, std::int64_t row) const {
        const std::int64_t index = sequence->first + token + row / group, query_head = head * group + row % group;
        return (index * params.heads + query_head) * params.layout.head_dim;
    }
};

/// Item n of a sequence. Items of a head are consecutive, blocks with the most keys first.
RW_INLINE attend_item item_at(const paged_rows& sequence, const sequence_plan& plan, std::int64_t n, float* partials) {
    attend_item item;
    item.sequence = &sequence, item.group = plan.group;
    const std::int64_t split = n % plan.splits, block = plan.blocks - 1 - n / plan.splits % plan.blocks;
    item.head = n / plan.splits / plan.blocks;
    item.token = block * plan.block_tokens;
    const std::int64_t left = sequence.tokens - item.token;
    item.tokens = left < plan.block_tokens ? left : plan.block_tokens;
    item.end = sequence.past + item.token + item.tokens;
    if (plan.splits > 1) {
        item.partial = partials + n * plan.partial_floats;
        item.first_key = split * split_keys;
        if (item.first_key + split_keys < item.end) item.end = item.first_key + split_keys;
    }
    return item;
}

/// Iterates over the sequences of a call that have tokens, and their items in order.
struct item_cursor {
    const attend_params* params = nullptr;
    std::size_t index = 0;        ///< of the sequence
    std::int64_t first_item = 0;  ///< of the sequence, among all items
    float* partials = nullptr;    ///< of the sequence
    sequence_plan plan;

    RW_INLINE item_cursor(const attend_params& call, float* space) : params(&call), partials(space) { skip_empty(); }
    [[nodiscard]] RW_INLINE bool finished() const { return index >= params->sequences.size(); }
    [[nodiscard]] RW_INLINE const paged_rows& sequence() const { return params->sequences[index]; }
    RW_INLINE void next_sequence() {
        first_item += plan.items, partials += plan.items * plan.partial_floats, ++index;
        skip_empty();
    }
    /// Item n of all. Calls must not decrease n.
    RW_INLINE attend_item item(std::int64_t n) {
        while (n - first_item >= plan.items) next_sequence();
        return item_at(sequence(), plan, n - first_item, partials);
    }

private:
    RW_INLINE void skip_empty() {
        while (!finished() && sequence().tokens == 0) ++index;
        if (!finished()) plan = sequence_plan::of(*params, sequence());
    }
};

}  // namespace ropewalk::llama::cpu::detail
