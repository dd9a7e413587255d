// Causal attention by warps: each lane has eight elements of a head, several lanes a key, and softmax is kept up while
// keys go by. Runs on the host too, which is how it is tested.
#pragma once

#include "ropewalk/llama/gpu/attend_job.hpp"

namespace ropewalk::llama::gpu {

/// E: the type of the cache. Rows: query rows which a warp compares every key with. Wide: 16 bytes at once.
template <CacheElement E, bool Wide, int Rows>
struct attend_body {
    /// Keys whose loads a group of lanes starts together.
    static constexpr int keys_at_once = Wide ? 4 : 2;
    static constexpr int blocks_resident = Rows > 1 ? 2 : 5;
    static constexpr int scores = Rows * keys_at_once;
    /// What lanes of different groups put together of a row: its sums and their total.
    static constexpr int merged = lane_elements + 1;

    struct state {
        std::int64_t sequence = 0, past = 0;
        std::int64_t first_row = 0;  ///< of the call, that of the sequence's first token
        std::int64_t row = 0, rows = 0;
        std::int64_t begin = 0, end = 0;  ///< keys
        std::int64_t limit[Rows];         ///< keys that a row sees
        std::int64_t kv_head = 0;
        std::int32_t split = 0, group = 0, element = 0;
        std::int32_t page[keys_at_once];   ///< −1: no such key
        std::int32_t token[keys_at_once];  ///< of the page
        float q[Rows][lane_elements];
        float sum[Rows][merged];  ///< of values, then of their weights
        float highest[Rows];
    };

    template <class Lanes, class Memory>
    static RW_HD RW_INLINE void run(const attend_job& job, std::int64_t index) {
        constexpr int width = Lanes::width;
        state s[width];
        for (int i = 0; i < width; ++i) begin<Memory>(job, s[i], index + i);
        const std::int64_t step = std::int64_t{warp_lanes} / job.lanes * keys_at_once;
        const std::int64_t last = s[0].end;  // the same in all lanes
        RW_KEEP_LOOP
        for (std::int64_t key = s[0].begin; key < last; key += step) {
            float values[width][scores];
            for (int i = 0; i < width; ++i) score<Memory>(job, s[i], key, values[i]);
            Lanes::combine(values, 1, job.lanes, add{});
            for (int i = 0; i < width; ++i) absorb<Memory>(job, s[i], key, values[i]);
        }
        merge_groups<Lanes>(job, s);
        for (int i = 0; i < width; ++i) store<Memory>(job, s[i]);
    }

private:
    static RW_HD RW_INLINE const E* elements(const cache_source& from) { return static_cast<const E*>(from.data); }
    static RW_HD RW_INLINE std::int64_t left(const attend_job& job, const state& s) { return job.head_dim - s.element; }
    /// The token of a row within its sequence, and its head among all.
    static RW_HD RW_INLINE ropewalk::gpu::detail::quotient token_of(const attend_job& job, const state& s, int row) {
        const auto [token, head] = ropewalk::gpu::detail::divide(s.row + row, job.shared);
        return {token, s.kv_head * job.shared + head};
    }

    template <class Memory>
    static RW_HD RW_INLINE void begin(const attend_job& job, state& s, std::int64_t index) {
        const auto [item, lane] = ropewalk::gpu::detail::divide(index, warp_lanes);
        const auto [task, tile] = ropewalk::gpu::detail::divide(item, job.tiles);
        const auto [part, split] = ropewalk::gpu::detail::divide(task, job.splits);
        const auto [sequence, kv_head] = ropewalk::gpu::detail::divide(part, job.kv_heads);
        const sequence_rows mine = detail::rows_of_sequence(job.batch, sequence);
        s.sequence = sequence, s.kv_head = kv_head, s.past = mine.past, s.first_row = mine.first;
        s.split = static_cast<std::int32_t>(split);
        s.group = static_cast<std::int32_t>(lane / job.lanes);
        s.element = static_cast<std::int32_t>(lane % job.lanes * lane_elements);
        // The last tokens have the most keys, so they begin first.
        s.row = (job.tiles - 1 - tile) * Rows;
        s.rows = detail::within(mine.tokens * job.shared - s.row, 0, Rows);
        set_keys(job, s);
        RW_UNROLL
        for (int row = 0; row < Rows; ++row) {
            s.highest[row] = no_score;
            RW_UNROLL
            for (int i = 0; i < merged; ++i) s.sum[row][i] = 0;
            const auto [token, head] = token_of(job, s, row);
            s.limit[row] = row < s.rows ? s.past + token + 1 : 0;
            const std::int64_t at = (s.first_row + token) * job.q_token + head * job.q_head + s.element;
            load_lane<Wide, Memory>(job.type, job.q, at, row < s.rows ? left(job, s) : 0, s.q[row]);
            RW_UNROLL
            for (int i = 0; i < lane_elements; ++i) s.q[row][i] *= job.scale;
        }
    }

    /// The keys of this split: as many as of any other, in whole steps.
    static RW_HD RW_INLINE void set_keys(const attend_job& job, state& s) {
        if (s.rows == 0) return;
        const std::int64_t all = s.past + token_of(job, s, static_cast<int>(s.rows) - 1).whole + 1;
        const std::int64_t keys = all < job.batch.capacity ? all : job.batch.capacity;
        const std::int64_t step = std::int64_t{warp_lanes} / job.lanes * keys_at_once;
        const std::int64_t steps = ropewalk::gpu::detail::divide(keys + step - 1, step).whole;
        const std::int64_t each = ropewalk::gpu::detail::divide(steps + job.splits - 1, job.splits).whole * step;
        s.begin = s.split * each;
        s.end = s.begin + each < keys ? s.begin + each : keys;
    }

    /// This lane's part of the products of all rows with its group's next keys.
    template <class Memory>
    static RW_HD RW_INLINE void score(const attend_job& job, state& s, std::int64_t step, float (&values)[scores]) {
        const std::int64_t first = step + s.group * keys_at_once;
        detail::entry_cursor cursor(job.pages, s.sequence, first);
        RW_UNROLL
        for (int key = 0; key < keys_at_once; ++key) {
            s.page[key] = first + key < s.end ? static_cast<std::int32_t>(cursor.place().page) : -1;
            s.token[key] = static_cast<std::int32_t>(cursor.place().token);
            cursor.next();
        }
        lane_values k[keys_at_once];
        RW_UNROLL
        for (int key = 0; key < keys_at_once; ++key) {
            load_cached<Memory>(job.k, job, s, key, k[key]);
        }
        RW_UNROLL
        for (int key = 0; key < keys_at_once; ++key) {
            const float scale = scale_at<Memory>(job.k, s, key);
            RW_UNROLL
            for (int row = 0; row < Rows; ++row) {
                float products[lane_elements];
                RW_UNROLL
                for (int i = 0; i < lane_elements; ++i) products[i] = s.q[row][i] * k[key][i];
                values[row * keys_at_once + key] = sum_of_neighbours(products) * scale;
            }
        }
    }

    /// A cached head's elements of this lane, zeros where there is no such place.
    template <class Memory>
    static RW_HD RW_INLINE void load_cached(const cache_source& from, const attend_job& job, const state& s, int key,
                                            lane_values& x) {
        const bool here = s.page[key] >= 0;
        const std::int64_t at = here ? detail::element_of(from, {s.page[key], s.token[key]}, s.kv_head) + s.element : 0;
        load_lane<Wide, Memory>(elements(from) + at, here ? left(job, s) : 0, x);
    }
    /// The scale of a cached head; 1 for types which have one a tensor, or none.
    template <class Memory>
    static RW_HD RW_INLINE float scale_at(const cache_source& from, const state& s, int key) {
        if constexpr (std::same_as<E, std::int8_t>) {
            return s.page[key] >= 0 ? detail::scale_of<Memory>(from, {s.page[key], s.token[key]}, s.kv_head) : 0;
        } else {
            return 1;
        }
    }

    /// Adds the group's values by their scores, after what came before has shrunk to the new maximum.
    template <class Memory>
    static RW_HD RW_INLINE void absorb(const attend_job& job, state& s, std::int64_t step,
                                       const float (&values)[scores]) {
        const std::int64_t first = step + s.group * keys_at_once;
        lane_values v[keys_at_once];
        float scale[keys_at_once];
        RW_UNROLL
        for (int key = 0; key < keys_at_once; ++key) {
            load_cached<Memory>(job.v, job, s, key, v[key]);
            scale[key] = scale_at<Memory>(job.v, s, key);
        }
        RW_UNROLL
        for (int row = 0; row < Rows; ++row) {
            const auto sees = [&](int key) { return first + key < s.limit[row] && s.page[key] >= 0; };
            float highest = s.highest[row];
            RW_UNROLL
            for (int key = 0; key < keys_at_once; ++key) {
                if (sees(key)) highest = larger_number{}(highest, values[row * keys_at_once + key]);
            }
            const float shrink = exp2_of(s.highest[row] - highest);
            s.highest[row] = highest;
            RW_UNROLL
            for (int i = 0; i < merged; ++i) s.sum[row][i] *= shrink;
            RW_UNROLL
            for (int key = 0; key < keys_at_once; ++key) {
                // What a row does not see must not reach it, not even multiplied by 0: it may be a NaN.
                if (!sees(key)) continue;
                const float weight = exp2_of(values[row * keys_at_once + key] - highest);
                s.sum[row][lane_elements] += weight;
                RW_UNROLL
                for (int i = 0; i < lane_elements; ++i)
                    s.sum[row][i] = RW_FMA(weight * scale[key], v[key][i], s.sum[row][i]);
            }
        }
    }

    /// What the groups of a warp have seen, put together in all of them.
    template <class Lanes, int width>
    static RW_HD RW_INLINE void merge_groups(const attend_job& job, state (&s)[width]) {
        float highest[width][Rows];
        for (int i = 0; i < width; ++i) {
            RW_UNROLL
            for (int row = 0; row < Rows; ++row) highest[i][row] = s[i].highest[row];
        }
        Lanes::combine(highest, job.lanes, warp_lanes, larger_number{});
        RW_UNROLL
        for (int row = 0; row < Rows; ++row) {
            float sums[width][merged];
            for (int i = 0; i < width; ++i) {
                const float shrink = exp2_of(s[i].highest[row] - highest[i][row]);
                s[i].highest[row] = highest[i][row];
                RW_UNROLL
                for (int j = 0; j < merged; ++j) sums[i][j] = s[i].sum[row][j] * shrink;
            }
            Lanes::combine(sums, job.lanes, warp_lanes, add{});
            for (int i = 0; i < width; ++i) {
                RW_UNROLL
                for (int j = 0; j < merged; ++j) s[i].sum[row][j] = sums[i][j];
            }
        }
    }

    template <class Memory>
    static RW_HD RW_INLINE void store(const attend_job& job, const state& s) {
        if (s.group != 0) return;
        RW_UNROLL
        for (int row = 0; row < Rows; ++row) {
            if (row >= s.rows) continue;
            const auto [token, head] = token_of(job, s, row);
            const std::int64_t at = s.first_row + token;
            const float total = s.sum[row][lane_elements];
            lane_values x;
            // A row that saw no key becomes zeros.
            const float factor = job.splits > 1 ? 1 : total == 0 ? 0 : job.v.scale / total;
            RW_UNROLL
            for (int i = 0; i < lane_elements; ++i) x[i] = s.sum[row][i] * factor;
            if (job.splits == 1) {
                store_lane<Wide, Memory>(job.type, job.out, at * job.out_token + head * job.out_head + s.element,
                                         left(job, s), x);
                continue;
            }
            const std::int64_t split = (at * job.heads + head) * job.splits + s.split;
            store_lane<Wide, Memory>(job.sums + split * job.head_dim + s.element, left(job, s), x);
            if (s.element == 0)
                ropewalk::gpu::detail::store_elements<float, Memory>(job.states + 2 * split, {s.highest[row], total});
        }
    }
};

/// Puts the splits of rows together.
template <bool Wide>
struct merge_body {
    static constexpr int blocks_resident = usual_blocks;

    template <class Lanes, class Memory>
    static RW_HD RW_INLINE void run(const merge_job& job, std::int64_t index) {
        for (int i = 0; i < Lanes::width; ++i) one<Memory>(job, index + i);
    }

private:
    template <class Memory>
    static RW_HD RW_INLINE void one(const merge_job& job, std::int64_t index) {
        const auto [row, run] = ropewalk::gpu::detail::divide(index, job.runs);
        const auto [token, head] = ropewalk::gpu::detail::divide(row, job.heads);
        // Rows behind the last sequence have no partial results.
        if (token >= job.batch.tokens || detail::sequence_of_row(job.batch, token) < 0) return;
        const std::int64_t element = run * lane_elements, left = job.head_dim - element;
        float highest = no_score;
        for (int split = 0; split < job.splits; ++split)
            highest = larger_number{}(highest, state_of<Memory>(job, row, split, 0));
        lane_values x{};
        float total = 0;
        for (int split = 0; split < job.splits; ++split) {
            const float part = state_of<Memory>(job, row, split, 1);
            if (part == 0) continue;
            const float weight = exp2_of(state_of<Memory>(job, row, split, 0) - highest);
            total = RW_FMA(weight, part, total);
            lane_values sum;
            load_lane<Wide, Memory>(job.sums + (row * job.splits + split) * job.head_dim + element, left, sum);
            RW_UNROLL
            for (int i = 0; i < lane_elements; ++i) x[i] = RW_FMA(weight, sum[i], x[i]);
        }
        const float factor = total == 0 ? 0 : job.v_scale / total;
        RW_UNROLL
        for (int i = 0; i < lane_elements; ++i) x[i] *= factor;
        store_lane<Wide, Memory>(job.type, job.out, token * job.out_token + head * job.out_head + element, left, x);
    }

    template <class Memory>
    static RW_HD RW_INLINE float state_of(const merge_job& job, std::int64_t row, int split, int which) {
        return detail::load_one<float, Memory>(job.states + (row * job.splits + split) * 2 + which);
    }
};

/// Calls f with the body of a job's kernel.
template <class F>
void with_body(const attend_job& job, const F& f) {
    const auto by_rows = [&]<CacheElement E>(E /*type*/) {
        if (!job.wide) return f(attend_body<E, false, 1>{});
        if (job.rows == 1) return f(attend_body<E, true, 1>{});
        f(attend_body<E, true, 4>{});
    };
    switch (job.k.type) {
        case cache_type::f32:
            return by_rows(float{});
        case cache_type::f16:
            return by_rows(f16{});
        case cache_type::bf16:
            return by_rows(bf16{});
        case cache_type::f8e4m3:
            return by_rows(f8e4m3{});
        default:
            return by_rows(std::int8_t{});
    }
}
template <class F>
void with_body(const merge_job& job, const F& f) {
    with_width(job.wide, [&](auto wide) { f(merge_body<wide()>{}); });
}

}  // namespace ropewalk::llama::gpu
