// How the attention of a call is cut into items, each of them some queries of one head of keys, over some of the keys.
#pragma once

#include "ropewalk/llama/cpu/prefill_tile.hpp"

namespace ropewalk::llama::cpu::detail {

/// Queries that share the tiles of a head, about: enough that widening them costs little.
inline constexpr std::int64_t block_rows = 128;
/// Keys of an item where the keys are shared out, a multiple of tile_tokens. Neither depends on the threads, so results
/// do not.
inline constexpr std::int64_t split_keys = 1024;
/// Queries of a part, over all heads, whose keys are shared out. More of them occupy threads without that.
inline constexpr std::int64_t most_split_rows = 256;

/// Queries of one head of keys below which a strip is faster than a panel that is partly empty.
template <class A>
inline constexpr std::int64_t strip_rows = lane_count<A> * 3 / 4;

/// How one part is cut.
struct part_plan {
    std::int64_t group = 1;         ///< queries a token that share a head of keys
    std::int64_t block_tokens = 1;  ///< tokens an item
    std::int64_t blocks = 0, splits = 1, items = 0;
    std::int64_t partial_floats = 0;  ///< an item's, where keys are shared out

    /// Floats of a query's partial result: its elements, the greatest score and the sum of weights.
    static RW_INLINE std::int64_t row_floats(std::int64_t head_dim) { return head_dim + 2; }

    static RW_INLINE part_plan of(const attend_params& job, const paged_rows& part) {
        part_plan plan;
        plan.group = job.heads / job.layout.kv_heads;
        plan.block_tokens = plan.group < block_rows ? block_rows / plan.group : 1;
        plan.blocks = (part.tokens + plan.block_tokens - 1) / plan.block_tokens;
        if (part.tokens * job.heads <= most_split_rows)
            plan.splits = (part.past + part.tokens + split_keys - 1) / split_keys;
        plan.items = plan.blocks * plan.splits * job.layout.kv_heads;
        const std::int64_t tokens = part.tokens < plan.block_tokens ? part.tokens : plan.block_tokens;
        if (plan.splits > 1) plan.partial_floats = tokens * plan.group * row_floats(job.layout.head_dim);
        return plan;
    }
};

/// One item.
struct attend_item {
    const paged_rows* part = nullptr;
    std::int64_t group = 1;
    std::int64_t head = 0;                ///< of keys
    std::int64_t token = 0, tokens = 0;   ///< of the part
    std::int64_t first_key = 0, end = 0;  ///< keys to look at
    float* partial = nullptr;             ///< null: the result is whole

    [[nodiscard]] RW_INLINE std::int64_t rows() const { return tokens * group; }
    /// Keys that query `row` may look at.
    [[nodiscard]] RW_INLINE std::int64_t visible(std::int64_t row) const {
        return part->past + token + row / group + 1;
    }
    /// Where query `row` lies in q and its result in out.
    [[nodiscard]] RW_INLINE std::int64_t offset(const attend_params& job, std::int64_t row) const {
        const std::int64_t at = part->first + token + row / group, query = head * group + row % group;
        return (at * job.heads + query) * job.layout.head_dim;
    }
};

/// Item number n of a part. Heads follow each other, and of a head the blocks with the most keys come first.
RW_INLINE attend_item item_at(const paged_rows& part, const part_plan& plan, std::int64_t n, float* partials) {
    attend_item item;
    item.part = &part, item.group = plan.group;
    const std::int64_t split = n % plan.splits, block = plan.blocks - 1 - n / plan.splits % plan.blocks;
    item.head = n / plan.splits / plan.blocks;
    item.token = block * plan.block_tokens;
    const std::int64_t left = part.tokens - item.token;
    item.tokens = left < plan.block_tokens ? left : plan.block_tokens;
    item.end = part.past + item.token + item.tokens;
    if (plan.splits > 1) {
        item.partial = partials + n * plan.partial_floats;
        item.first_key = split * split_keys;
        if (item.first_key + split_keys < item.end) item.end = item.first_key + split_keys;
    }
    return item;
}

/// Walks over the items of all parts in order.
struct item_cursor {
    const attend_params* job = nullptr;
    std::int64_t at = 0;    ///< part
    std::int64_t base = 0;  ///< items before it
    float* partials = nullptr;
    part_plan plan;

    RW_INLINE item_cursor(const attend_params& whole, float* space) : job(&whole), partials(space) { skip_empty(); }
    [[nodiscard]] RW_INLINE bool finished() const { return at >= static_cast<std::int64_t>(job->sequences.size()); }
    [[nodiscard]] RW_INLINE const paged_rows& part() const { return job->sequences[static_cast<std::size_t>(at)]; }
    RW_INLINE void next_part() {
        base += plan.items, partials += plan.items * plan.partial_floats, ++at;
        skip_empty();
    }
    /// Item number n of all, which is no lower than that of the last call.
    RW_INLINE attend_item item(std::int64_t n) {
        while (n - base >= plan.items) next_part();
        return item_at(part(), plan, n - base, partials);
    }

private:
    RW_INLINE void skip_empty() {
        while (!finished() && part().tokens == 0) ++at;
        if (!finished()) plan = part_plan::of(*job, part());
    }
};

}  // namespace ropewalk::llama::cpu::detail
