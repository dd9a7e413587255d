// Causal attention over a paged cache: softmax(scale · q kᵀ) v per query, in float32. Items go to the prefill tile or
// the decode tile; the partial results of split keys are merged at the end.
#pragma once

#include "ropewalk/llama/cpu/attend_plan.hpp"
#include "ropewalk/llama/cpu/decode_tile.hpp"
#include "ropewalk/llama/cpu/prefill_tile.hpp"
#include "ropewalk/llama/cpu/threads.hpp"

namespace ropewalk::llama::cpu::detail {

/// Scratch memory of a thread.
template <class A>
struct attend_scratch : query_state {
    float *keys = nullptr, *values = nullptr;  ///< widened tiles

    /// Queries of a full prefill tile.
    static constexpr std::int64_t full = prefill_vectors<A> * lane_count<A>;

    /// Lays the arrays out from `start` on and returns the number of floats they take.
    std::int64_t lay_out(float* start, const attend_params& params) {
        constexpr std::int64_t line = 16;
        const std::int64_t head_dim = params.layout.head_dim, group = params.heads / params.layout.kv_heads;
        const std::int64_t queries = group < item_rows ? item_rows / group * group : group;
        const std::int64_t rows = (queries / full + 1) * full;  // whole prefill tiles
        std::int64_t used = 0;
        const auto take = [&](float*& array, std::int64_t count) {
            if (start != nullptr) array = start + used;
            used += (count + line - 1) / line * line;
        };
        take(q, rows * padded_width(head_dim)), take(out, rows * padded_width(head_dim));
        take(row_max, rows), take(row_sum, rows), take(visible, rows);
        take(scores, tile_tokens * (full > 4 ? full : 4));
        take(keys, tile_tokens * tile_stride(head_dim)), take(values, tile_tokens * tile_stride(head_dim));
        return used;
    }
};

/// Calls use(first key, keys, tile of keys, tile of values) for the tiles of an item: kv_tile<T> in place if allowed
/// and one page holds the tile, else widened kv_tile<float>.
template <class A, class T, class Use>
RW_INLINE void for_each_tile(const attend_params& params, const attend_item& item, const attend_scratch<A>& space,
                             bool in_place, const Use& use) {
    const cached_head keys{params.layout, item.sequence->pages, item.head, true};
    const cached_head values{params.layout, item.sequence->pages, item.head, false};
    for (std::int64_t key = item.first_key; key < item.end; key += tile_tokens) {
        const std::int64_t left = item.end - key, count = left < tile_tokens ? left : tile_tokens;
        const std::int64_t next_count = left - count < count ? left - count : count;
        if (in_place && keys.in_one_page(key, count)) {
            kv_tile<T> k = tile_in_place<T>(keys, key), v = tile_in_place<T>(values, key);
            k.next = v.data;
            if (next_count > 0) v.next = keys.template row<const T>(key + tile_tokens);
            use(key, count, k, v);
        } else {
            // Each prefetches the other: keys the values of this tile, values the keys of the next.
            const kv_tile<float> k = widened_tile<A>(keys, key, count, space.keys, values, key, count);
            const kv_tile<float> v =
                widened_tile<A>(values, key, count, space.values, keys, key + tile_tokens, next_count);
            use(key, count, k, v);
        }
    }
}

/// Writes the result of a query, divided by its sum, or its partial result. Element i is out[i · step].
RW_INLINE void finish_row(const attend_params& params, const attend_item& item, std::int64_t row, const float* out,
                          std::int64_t step, float row_max, float row_sum) {
    const std::int64_t head_dim = params.layout.head_dim;
    if (item.partial == nullptr) {
        float* const to = params.out + item.offset(params, row);
        const float inverse = 1.0F / row_sum;
        for (std::int64_t i = 0; i < head_dim; ++i) to[i] = out[i * step] * inverse;
        return;
    }
    float* const to = item.partial + row * sequence_plan::row_floats(head_dim);
    for (std::int64_t i = 0; i < head_dim; ++i) to[i] = out[i * step];
    to[head_dim] = row_max, to[head_dim + 1] = row_sum;
}

/// Many queries, in several prefill tiles that use each tile of keys in turn.
template <class A>
struct prefill_runner {
    static constexpr std::int64_t lanes = lane_count<A>;
    static constexpr std::int64_t full = attend_scratch<A>::full;

    const attend_params& params;
    const attend_item& item;
    const attend_scratch<A>& space;

    /// Registers of the prefill tile that begins with query `first`.
    [[nodiscard]] RW_INLINE std::int64_t vectors(std::int64_t first) const {
        const std::int64_t left = (item.rows() - first + lanes - 1) / lanes;
        return left < prefill_vectors<A> ? left : prefill_vectors<A>;
    }
    [[nodiscard]] RW_INLINE query_state state(std::int64_t first) const {
        const std::int64_t head_dim = params.layout.head_dim;
        return {.q = space.q + first * head_dim,
                .out = space.out + first * head_dim,
                .row_max = space.row_max + first,
                .row_sum = space.row_sum + first,
                .visible = space.visible + first,
                .scores = space.scores,
                .depth = head_dim};
    }

    /// Packs scaled queries element by element, zeros for the lanes without a query.
    RW_INLINE void begin() const {
        for (std::int64_t first = 0; first < item.rows(); first += full) {
            const query_state s = state(first);
            const std::int64_t width = vectors(first) * lanes;
            for (std::int64_t lane = 0; lane < width; ++lane) {
                const bool exists = first + lane < item.rows();
                const float* const q = exists ? params.q + item.offset(params, first + lane) : nullptr;
                for (std::int64_t i = 0; i < s.depth; ++i) s.q[i * width + lane] = exists ? q[i] * params.scale : 0.0F;
            }
            for (std::int64_t i = 0; i < width * s.depth; ++i) s.out[i] = 0;
            for (std::int64_t i = 0; i < width; ++i) s.row_max[i] = no_score, s.row_sum[i] = 0;
        }
    }

    template <int V>
    RW_INLINE void add(const query_state& s, std::int64_t first, std::int64_t key, std::int64_t count,
                       const kv_tile<float>& k, const kv_tile<float>& v) const {
        const std::int64_t left = item.rows() - first;
        const std::int64_t last = item.visible(first + (left < full ? left : full) - 1) - key;
        const std::int64_t unmasked = item.visible(first) - key;
        if (last <= 0) return;
        for (std::int64_t i = 0; unmasked < count && i < V * lanes; ++i) {
            // Lanes without a query see what the last query sees.
            const std::int64_t visible = item.visible(first + (i < left ? i : left - 1)) - key;
            s.visible[i] = static_cast<float>(visible < 0 ? 0 : visible < count ? visible : count);
        }
        prefill_tile<A, V>::add(s, {k, v, count < last ? count : last, unmasked});
    }

    RW_INLINE void run() const {
        begin();
        for_each_tile<A, float>(
            params, item, space, params.layout.type == cache_type::f32,
            [&](std::int64_t key, std::int64_t count, const kv_tile<float>& k, const kv_tile<float>& v)
                __attribute__((always_inline)) {
                    for (std::int64_t first = 0; first < item.rows(); first += full) {
                        const query_state s = state(first);
                        const std::int64_t wide = vectors(first);
                        if constexpr (prefill_vectors<A> > 2) {
                            if (wide == 3) add<3>(s, first, key, count, k, v);
                        }
                        if (wide == 2) add<2>(s, first, key, count, k, v);
                        if (wide == 1) add<1>(s, first, key, count, k, v);
                    }
                });
        for (std::int64_t row = 0; row < item.rows(); ++row) {
            const std::int64_t first = row / full * full, width = vectors(first) * lanes, lane = row - first;
            const query_state s = state(first);
            finish_row(params, item, row, s.out + lane, width, s.row_max[lane], s.row_sum[lane]);
        }
    }
};

/// A few queries, in decode tiles of four, two or one.
template <class A, class T>
struct decode_runner {
    const attend_params& params;
    const attend_item& item;
    const attend_scratch<A>& space;

    template <class E, int R>
    RW_INLINE void add(const query_state& state, std::int64_t row, std::int64_t key, std::int64_t count,
                       const kv_tile<E>& k, const kv_tile<E>& v) const {
        std::int64_t visible[R];
        for (int r = 0; r < R; ++r) {
            visible[r] = item.visible(row + r) - key;
            visible[r] = visible[r] < 0 ? 0 : visible[r] < count ? visible[r] : count;
        }
        decode_tile<A, E, R>::add(state, row, k, v, count, visible);
    }
    template <class E>
    void add_all(const query_state& state, std::int64_t key, std::int64_t count, const kv_tile<E>& k,
                 const kv_tile<E>& v) const {
        std::int64_t row = 0;
        for (; row + 4 <= item.rows(); row += 4) add<E, 4>(state, row, key, count, k, v);
        for (; row + 2 <= item.rows(); row += 2) add<E, 2>(state, row, key, count, k, v);
        if (row < item.rows()) add<E, 1>(state, row, key, count, k, v);
    }

    RW_INLINE void run() const {
        const std::int64_t head_dim = params.layout.head_dim, width = padded_width(head_dim);
        const bool whole = head_dim % lane_count<A> == 0;  // in registers
        query_state state = space;
        state.width = width, state.depth = whole ? head_dim : width;
        for (std::int64_t row = 0; row < item.rows(); ++row) {
            const float* const from = params.q + item.offset(params, row);
            float *const q = space.q + row * width, *const out = space.out + row * width;
            for (std::int64_t i = 0; i < width; ++i) q[i] = i < head_dim ? from[i] * params.scale : 0.0F, out[i] = 0;
            space.row_max[row] = no_score, space.row_sum[row] = 0;
        }
        for_each_tile<A, T>(
            params, item, space, whole,
            [&]<class E>(std::int64_t key, std::int64_t count, const kv_tile<E>& k, const kv_tile<E>& v)
                __attribute__((always_inline)) { add_all<E>(state, key, count, k, v); });
        for (std::int64_t row = 0; row < item.rows(); ++row)
            finish_row(params, item, row, state.out + row * width, 1, state.row_max[row], state.row_sum[row]);
    }
};

template <class A>
void run_item(const attend_params& params, const attend_item& item, const attend_scratch<A>& space) {
    if (item.rows() >= decode_rows<A>) return prefill_runner<A>{params, item, space}.run();
    with_cache_element(
        params.layout.type, [&]<class T>(T /*type*/) __attribute__((always_inline)) {
            decode_runner<A, T>{params, item, space}.run();
        });
}

/// Merges the partial results of a query over all splits of the keys.
template <class A>
RW_INLINE void merge_row(const attend_params& params, const sequence_plan& plan, const attend_item& first,
                         std::int64_t row) {
    const std::int64_t head_dim = params.layout.head_dim, offset = row * sequence_plan::row_floats(head_dim);
    const auto partial = [&](std::int64_t split) __attribute__((always_inline)) {
        return first.partial + split * plan.partial_floats + offset;
    };
    float row_max = no_score, row_sum = 0;
    for (std::int64_t s = 0; s < plan.splits; ++s)
        row_max = partial(s)[head_dim] > row_max ? partial(s)[head_dim] : row_max;
    float* const out = params.out + first.offset(params, row);
    for (std::int64_t i = 0; i < head_dim; ++i) out[i] = 0;
    for (std::int64_t s = 0; s < plan.splits; ++s) {
        const float* const from = partial(s);
        alignas(64) float weight[lane_count<A>];
        xsimd::exp(floats<A>(from[head_dim] - row_max)).store_aligned(weight);
        row_sum += weight[0] * from[head_dim + 1];
        for (std::int64_t i = 0; i < head_dim; ++i) out[i] += weight[0] * from[i];
    }
    const float inverse = 1.0F / row_sum;
    for (std::int64_t i = 0; i < head_dim; ++i) out[i] *= inverse;
}

/// Merges the partial results of all sequences whose keys are split.
template <class A>
void merge_splits(const attend_params& params, float* partials) {
    for (item_cursor cursor(params, partials); !cursor.finished(); cursor.next_sequence()) {
        if (cursor.plan.splits == 1) continue;
        for (std::int64_t n = 0; n < cursor.plan.items; n += cursor.plan.splits) {
            const attend_item first = item_at(cursor.sequence(), cursor.plan, n, cursor.partials);
            for (std::int64_t row = 0; row < first.rows(); ++row) merge_row<A>(params, cursor.plan, first, row);
        }
    }
}

/// kernel_table::attend.
template <class A>
void attend(const attend_params& params, int threads) {
    std::int64_t items = 0, partial_floats = 0, shares = 0;
    for (item_cursor cursor(params, nullptr); !cursor.finished(); cursor.next_sequence()) {
        const paged_rows& sequence = cursor.sequence();
        items += cursor.plan.items, partial_floats += cursor.plan.items * cursor.plan.partial_floats;
        // Waking a thread costs more than 64 Ki multiplications.
        shares +=
            sequence.tokens * (sequence.past + sequence.tokens) * params.heads * params.layout.head_dim / (64 * 1024);
    }
    if (items == 0) return;
    const int count = thread_count(shares < items ? shares : items, threads);
    const scratch<A> memory(attend_scratch<A>{}.lay_out(nullptr, params), count), partials(partial_floats, 1);
    share_out<A>(
        items, count, [&](int thread, const auto& claim) __attribute__((always_inline)) {
            attend_scratch<A> space;
            space.lay_out(memory.region(thread), params);
            item_cursor cursor(params, partials.region(0));
            for (std::int64_t n = claim(); n >= 0; n = claim()) run_item<A>(params, cursor.item(n), space);
        });
    merge_splits<A>(params, partials.region(0));
}

}  // namespace ropewalk::llama::cpu::detail
