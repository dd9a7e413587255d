// Decode attention: causal attention over a cache by warps, with a running softmax.
#pragma once

#include "ropewalk/llama/gpu/kernel.hpp"
#include "ropewalk/llama/gpu/sequences.hpp"

namespace ropewalk::llama::gpu {

/// Parameters of attention of queries [tokens, heads, head_dim].
///
/// A row is one query head of one token. The rows of a sequence that share a key head are numbered token by token, so
/// that the rows of a tile share keys, whether the tokens or the heads are many. One warp handles one tile of rows, one
/// key head and one split of the keys. Tiles are the innermost index, then splits, key heads and sequences.
struct attend_params : chunk_launch {
    tensor q, out;
    float* sums = nullptr;    ///< [tokens, heads, splits, head_dim], if there are several splits
    float* states = nullptr;  ///< [tokens, heads, splits, 2]: the row maximum and the sum of weights
    cache_tensor k, v;        ///< of detail::with_factor()
    sequence_reader batch;

    float scale = 1;                                   ///< of the scores, with log2 e and the scale of keys
    std::int32_t heads = 0, kv_heads = 0, shared = 1;  ///< query heads per key head
    std::int32_t head_dim = 0;
    std::int32_t lanes = 1;  ///< per key
    std::int32_t rows = 1;   ///< per tile; selects the kernel
    std::int32_t splits = 1;
    std::int64_t tiles = 0;  ///< per sequence
};

/// The body for caches of type E and tiles of Rows query rows. Each lane holds lane_elements of a head, several lanes
/// hold one key, and several groups of lanes work on different keys. Wide: 16-byte accesses.
template <CacheElement E, bool Wide, int Rows>
struct attend_body {
    /// Keys whose loads a group of lanes starts together.
    static constexpr int keys_per_step = Wide ? 4 : 2;
    static constexpr int blocks_resident = Rows > 1 ? 2 : 5;
    static constexpr int scores = Rows * keys_per_step;
    /// Values of a row that the groups add up: the elements of the output and the sum of weights.
    static constexpr int row_sums = lane_elements + 1;

    struct state {
        std::int64_t sequence = 0, past = 0;
        std::int64_t first_row = 0;  ///< of the call: the first token of the sequence
        std::int64_t row = 0, rows = 0;
        std::int64_t begin = 0, end = 0;  ///< keys
        std::int64_t visible[Rows];       ///< keys that a row attends to
        std::int64_t kv_head = 0;
        std::int32_t split = 0, group = 0, element = 0;
        std::int32_t page[keys_per_step];   ///< −1: no such key
        std::int32_t token[keys_per_step];  ///< of the page
        float q[Rows][lane_elements];
        float sum[Rows][row_sums];  ///< of weighted values, then of weights
        float row_max[Rows];
    };

    const attend_params& p;

    template <class Lanes, class Memory>
    static RW_HD RW_INLINE void run(const attend_params& params, std::int64_t index) {
        attend_body{params}.template run_lanes<Lanes, Memory>(index);
    }

private:
    template <class Lanes, class Memory>
    RW_HD RW_INLINE void run_lanes(std::int64_t index) const {
        constexpr int width = Lanes::width;
        state s[width];
        for (int i = 0; i < width; ++i) begin<Memory>(s[i], index + i);
        const std::int64_t step = std::int64_t{warp_lanes} / p.lanes * keys_per_step;
        const std::int64_t last = s[0].end;  // the same in all lanes
        RW_KEEP_LOOP
        for (std::int64_t key = s[0].begin; key < last; key += step) {
            float values[width][scores];
            for (int i = 0; i < width; ++i) score<Memory>(s[i], key, values[i]);
            Lanes::combine(values, 1, p.lanes, add{});
            for (int i = 0; i < width; ++i) accumulate<Memory>(s[i], key, values[i]);
        }
        merge_groups<Lanes>(s);
        for (int i = 0; i < width; ++i) store<Memory>(s[i]);
    }

    [[nodiscard]] RW_HD RW_INLINE std::int64_t left(const state& s) const { return p.head_dim - s.element; }
    /// Returns the token of a row within its sequence, and the head among all query heads.
    RW_HD RW_INLINE ropewalk::detail::quotient token_of(const state& s, int row) const {
        const auto [token, head] = detail::divide(s.row + row, p.shared);
        return {token, s.kv_head * p.shared + head};
    }

    template <class Memory>
    RW_HD RW_INLINE void begin(state& s, std::int64_t index) const {
        const auto [item, lane] = detail::divide(index, warp_lanes);
        const auto [task, tile] = detail::divide(item, p.tiles);
        const auto [part, split] = detail::divide(task, p.splits);
        const auto [sequence, kv_head] = detail::divide(part, p.kv_heads);
        const sequence_rows rows = p.batch.rows_of(sequence);
        s.sequence = sequence, s.kv_head = kv_head, s.past = rows.past, s.first_row = rows.first;
        s.split = static_cast<std::int32_t>(split);
        s.group = static_cast<std::int32_t>(lane / p.lanes);
        s.element = static_cast<std::int32_t>(lane % p.lanes * lane_elements);
        // The last tokens have the most keys, so their tiles start first.
        s.row = (p.tiles - 1 - tile) * Rows;
        s.rows = detail::within(rows.tokens * p.shared - s.row, 0, Rows);
        set_keys(s);
        RW_UNROLL
        for (int row = 0; row < Rows; ++row) {
            s.row_max[row] = no_score;
            RW_UNROLL
            for (int i = 0; i < row_sums; ++i) s.sum[row][i] = 0;
            const auto [token, head] = token_of(s, row);
            s.visible[row] = row < s.rows ? s.past + token + 1 : 0;
            const std::int64_t start = (s.first_row + token) * p.q.stride_token + head * p.q.stride_head + s.element;
            load_lane<Wide, Memory>(p.q.type, p.q.data, start, row < s.rows ? left(s) : 0, s.q[row]);
            RW_UNROLL
            for (int i = 0; i < lane_elements; ++i) s.q[row][i] *= p.scale;
        }
    }

    /// Sets the keys of this split. All splits have the same number of whole steps.
    RW_HD RW_INLINE void set_keys(state& s) const {
        if (s.rows == 0) return;
        const std::int64_t all = s.past + token_of(s, static_cast<int>(s.rows) - 1).whole + 1;
        const std::int64_t keys = all < p.batch.capacity ? all : p.batch.capacity;
        const std::int64_t step = std::int64_t{warp_lanes} / p.lanes * keys_per_step;
        const std::int64_t steps = detail::divide(keys + step - 1, step).whole;
        const std::int64_t each = detail::divide(steps + p.splits - 1, p.splits).whole * step;
        s.begin = s.split * each;
        s.end = s.begin + each < keys ? s.begin + each : keys;
    }

    /// Computes this lane's part of the products of all rows with the next keys of its group.
    template <class Memory>
    RW_HD RW_INLINE void score(state& s, std::int64_t step, float (&values)[scores]) const {
        const std::int64_t first = step + s.group * keys_per_step;
        detail::entry_cursor cursor(p.batch, s.sequence, first);
        RW_UNROLL
        for (int key = 0; key < keys_per_step; ++key) {
            s.page[key] = first + key < s.end ? static_cast<std::int32_t>(cursor.slot().page) : -1;
            s.token[key] = static_cast<std::int32_t>(cursor.slot().entry);
            cursor.next();
        }
        lane_values k[keys_per_step];
        RW_UNROLL
        for (int key = 0; key < keys_per_step; ++key) load_cached<Memory>(p.k, s, key, k[key]);
        RW_UNROLL
        for (int key = 0; key < keys_per_step; ++key) {
            const float scale = scale_of<Memory>(p.k, s, key);
            RW_UNROLL
            for (int row = 0; row < Rows; ++row) {
                float products[lane_elements];
                RW_UNROLL
                for (int i = 0; i < lane_elements; ++i) products[i] = s.q[row][i] * k[key][i];
                values[row * keys_per_step + key] = sum_of_neighbours(products) * scale;
            }
        }
    }

    /// Loads this lane's elements of a cached head, or zeros if there is no such key.
    template <class Memory>
    RW_HD RW_INLINE void load_cached(const cache_tensor& from, const state& s, int key, lane_values& x) const {
        const bool exists = s.page[key] >= 0;
        const std::int64_t start =
            exists ? detail::element_of(from, {s.page[key], s.token[key]}, s.kv_head) + s.element : 0;
        load_lane<Wide, Memory>(static_cast<const E*>(from.data) + start, exists ? left(s) : 0, x);
    }
    /// Returns the int8 scale of a cached head, or 1 for other types.
    template <class Memory>
    RW_HD RW_INLINE float scale_of(const cache_tensor& from, const state& s, int key) const {
        if constexpr (std::same_as<E, std::int8_t>) {
            return s.page[key] >= 0 ? detail::scale_of<Memory>(from, {s.page[key], s.token[key]}, s.kv_head) : 0;
        } else {
            return 1;
        }
    }

    /// Adds the values of the group's keys, weighted by their scores, after rescaling the sums to the new maximum.
    template <class Memory>
    RW_HD RW_INLINE void accumulate(state& s, std::int64_t step, const float (&values)[scores]) const {
        const std::int64_t first = step + s.group * keys_per_step;
        lane_values v[keys_per_step];
        float scale[keys_per_step];
        RW_UNROLL
        for (int key = 0; key < keys_per_step; ++key) {
            load_cached<Memory>(p.v, s, key, v[key]);
            scale[key] = scale_of<Memory>(p.v, s, key);
        }
        RW_UNROLL
        for (int row = 0; row < Rows; ++row) {
            const auto attends = [&](int key) { return first + key < s.visible[row] && s.page[key] >= 0; };
            float row_max = s.row_max[row];
            RW_UNROLL
            for (int key = 0; key < keys_per_step; ++key) {
                if (attends(key)) row_max = larger_number{}(row_max, values[row * keys_per_step + key]);
            }
            const float rescale = exp2_of(s.row_max[row] - row_max);
            s.row_max[row] = row_max;
            RW_UNROLL
            for (int i = 0; i < row_sums; ++i) s.sum[row][i] *= rescale;
            RW_UNROLL
            for (int key = 0; key < keys_per_step; ++key) {
                // A masked value must not be multiplied by 0: it may be a NaN.
                if (!attends(key)) continue;
                const float weight = exp2_of(values[row * keys_per_step + key] - row_max);
                s.sum[row][lane_elements] += weight;
                RW_UNROLL
                for (int i = 0; i < lane_elements; ++i)
                    s.sum[row][i] = RW_FMA(weight * scale[key], v[key][i], s.sum[row][i]);
            }
        }
    }

    /// Merges the maxima and sums of the groups of a warp, in all groups.
    template <class Lanes, int width>
    RW_HD RW_INLINE void merge_groups(state (&s)[width]) const {
        float row_max[width][Rows];
        for (int i = 0; i < width; ++i) {
            RW_UNROLL
            for (int row = 0; row < Rows; ++row) row_max[i][row] = s[i].row_max[row];
        }
        Lanes::combine(row_max, p.lanes, warp_lanes, larger_number{});
        RW_UNROLL
        for (int row = 0; row < Rows; ++row) {
            float sums[width][row_sums];
            for (int i = 0; i < width; ++i) {
                const float rescale = exp2_of(s[i].row_max[row] - row_max[i][row]);
                s[i].row_max[row] = row_max[i][row];
                RW_UNROLL
                for (int j = 0; j < row_sums; ++j) sums[i][j] = s[i].sum[row][j] * rescale;
            }
            Lanes::combine(sums, p.lanes, warp_lanes, add{});
            for (int i = 0; i < width; ++i) {
                RW_UNROLL
                for (int j = 0; j < row_sums; ++j) s[i].sum[row][j] = sums[i][j];
            }
        }
    }

    template <class Memory>
    RW_HD RW_INLINE void store(const state& s) const {
        if (s.group != 0) return;
        RW_UNROLL
        for (int row = 0; row < Rows; ++row) {
            if (row >= s.rows) continue;
            const auto [token, head] = token_of(s, row);
            const std::int64_t out_row = s.first_row + token;
            const float total = s.sum[row][lane_elements];
            lane_values x;
            // A row without keys becomes zeros.
            const float factor = p.splits > 1 ? 1 : total == 0 ? 0 : p.v.scale / total;
            RW_UNROLL
            for (int i = 0; i < lane_elements; ++i) x[i] = s.sum[row][i] * factor;
            if (p.splits == 1) {
                store_lane<Wide, Memory>(p.out.type, p.out.data,
                                         out_row * p.out.stride_token + head * p.out.stride_head + s.element, left(s),
                                         x);
                continue;
            }
            const std::int64_t split = (out_row * p.heads + head) * p.splits + s.split;
            store_lane<Wide, Memory>(p.sums + split * p.head_dim + s.element, left(s), x);
            if (s.element == 0) detail::store_elements<float, Memory>(p.states + 2 * split, {s.row_max[row], total});
        }
    }
};

/// Parameters of the kernel that merges splits, one thread per chunk.
struct merge_params : attend_params {
    template <bool Wide, class Memory>
    RW_HD RW_INLINE void run_thread(std::int64_t index) const {
        const auto [row, chunk] = detail::divide(index, chunks);
        const auto [token, head] = detail::divide(row, heads);
        // Rows after the last sequence have no partial results.
        if (token >= batch.tokens || batch.sequence_of(token) < 0) return;
        const std::int64_t element = chunk * lane_elements, left = head_dim - element;
        float row_max = no_score;
        for (int split = 0; split < splits; ++split)
            row_max = larger_number{}(row_max, state_of<Memory>(row, split, 0));
        lane_values x{};
        float total = 0;
        for (int split = 0; split < splits; ++split) {
            const float split_total = state_of<Memory>(row, split, 1);
            if (split_total == 0) continue;
            const float weight = exp2_of(state_of<Memory>(row, split, 0) - row_max);
            total = RW_FMA(weight, split_total, total);
            lane_values sum;
            load_lane<Wide, Memory>(static_cast<const float*>(sums) + (row * splits + split) * head_dim + element, left,
                                    sum);
            RW_UNROLL
            for (int i = 0; i < lane_elements; ++i) x[i] = RW_FMA(weight, sum[i], x[i]);
        }
        const float factor = total == 0 ? 0 : v.scale / total;
        RW_UNROLL
        for (int i = 0; i < lane_elements; ++i) x[i] *= factor;
        store_lane<Wide, Memory>(out.type, out.data, token * out.stride_token + head * out.stride_head + element, left,
                                 x);
    }

private:
    template <class Memory>
    [[nodiscard]] RW_HD RW_INLINE float state_of(std::int64_t row, int split, int which) const {
        return detail::load_one<float, Memory>(static_cast<const float*>(states) + (row * splits + split) * 2 + which);
    }
};

template <class F>
void with_body(const attend_params& params, const F& f) {
    const auto by_rows = [&]<CacheElement E>(E /*type*/) {
        if (!params.wide) return f(std::type_identity<attend_body<E, false, 1>>{});
        if (params.rows == 1) return f(std::type_identity<attend_body<E, true, 1>>{});
        f(std::type_identity<attend_body<E, true, 4>>{});
    };
    switch (params.k.type) {
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

}  // namespace ropewalk::llama::gpu
