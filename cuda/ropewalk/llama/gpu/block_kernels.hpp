// Kernels of prefill attention between the matrix products of a block of queries and keys.
#pragma once

#include "ropewalk/llama/gpu/kernel.hpp"
#include "ropewalk/llama/gpu/sequences.hpp"

namespace ropewalk::llama::gpu {

/// Queries and keys per block. Keys are a multiple of lane_elements, so that rows of scores stay aligned.
struct block_sizes {
    std::int64_t queries = 512, keys = 512;
};

/// Buffers of one block in a workspace. Their size does not depend on the lengths of the sequences: there is no matrix
/// of all scores.
struct block_buffers {
    void* keys = nullptr;     ///< [kv_heads, sizes.keys, head_dim] of the queries' type
    void* values = nullptr;   ///< likewise
    float* scores = nullptr;  ///< [heads, sizes.queries, sizes.keys]
    void* weights = nullptr;  ///< likewise, of the queries' type
    float* sums = nullptr;    ///< [heads, sizes.queries, head_dim]
    float* states = nullptr;  ///< [heads, sizes.queries, 2]: the row maximum and the sum of weights
    std::int64_t bytes = 0;
};

namespace detail {

/// Calls f with a value of the element type of a cache.
template <class F>
RW_HD RW_INLINE void with_cache_type(cache_type type, const F& f) {
    switch (type) {
        case cache_type::f32:
            return f(float{});
        case cache_type::f16:
            return f(f16{});
        case cache_type::bf16:
            return f(bf16{});
        case cache_type::f8e4m3:
            return f(f8e4m3{});
        default:
            return f(std::int8_t{});
    }
}

}  // namespace detail

/// Parameters of the copy of cache entries [first, first + count) of a sequence to [heads, stride, head_dim] of another
/// type, with their scales applied, for a product to read. Entries on missing pages become zeros.
struct gather_cache_params : chunk_launch {
    cache_tensor from;  ///< of detail::with_factor()
    sequence_reader batch;
    std::int64_t sequence = 0, first = 0, count = 0;
    void* out = nullptr;
    element_type type = element_type::f32;
    std::int64_t stride = 0;  ///< entries from one head to the next

    template <bool Wide, class Memory>
    RW_HD RW_INLINE void run_thread(std::int64_t index) const {
        const auto [row, chunk] = detail::divide(index, chunks);
        const auto [head, entry] = detail::divide(row, count);
        if (head >= from.heads) return;
        const std::int64_t element = chunk * lane_elements, left = from.head_dim - element;
        const cache_place place = batch.place_of(sequence, first + entry);
        const bool exists = place.page >= 0;
        lane_values x;
        const std::int64_t start = exists ? detail::element_of(from, place, head) + element : 0;
        detail::with_cache_type(from.type, [&]<CacheElement E>(E /*type*/) {
            load_lane<Wide, Memory>(static_cast<const E*>(from.data) + start, exists ? left : 0, x);
        });
        const float scale = exists && from.scales != nullptr ? detail::scale_of<Memory>(from, place, head) : from.scale;
        RW_UNROLL
        for (int i = 0; i < lane_elements; ++i) x[i] *= scale;
        store_lane<Wide, Memory>(type, out, (head * stride + entry) * from.head_dim + element, left, x);
    }
};

/// Parameters of the softmax of the scores of a block, as far as each row attends. Writes the weights, 0 for masked
/// keys, and rescales the sums of earlier blocks to the new row maximum. One warp handles one row.
struct softmax_params : launch_size {
    block_buffers buffers;
    block_sizes sizes;
    element_type type = element_type::f32;  ///< of the weights
    float scale = 1;                        ///< with log2 e
    std::int64_t rows = 0, keys = 0, head_dim = 0;
    std::int64_t visible = 0;  ///< keys of this block that row 0 attends to; row i attends to i more
    bool first = true;         ///< there are neither sums nor states yet
    bool wide = false;
};

template <bool Wide>
struct softmax_body {
    static constexpr int blocks_resident = usual_blocks;

    struct state {
        std::int64_t row = 0;  ///< of all heads
        std::int64_t visible = 0;
        std::int64_t first = 0;  ///< this lane's first column
        float row_max = no_score, rescale = 1, total = 0;
    };

    template <class Lanes, class Memory>
    static RW_HD RW_INLINE void run(const softmax_params& params, std::int64_t index) {
        constexpr int width = Lanes::width;
        state s[width];
        float values[width][1];
        for (int i = 0; i < width; ++i) values[i][0] = row_max<Memory>(params, s[i], index + i);
        Lanes::combine(values, 1, warp_lanes, larger_number{});
        for (int i = 0; i < width; ++i) {
            update_row_max<Memory>(params, s[i], values[i][0]);
            values[i][0] = write_weights<Memory>(params, s[i]);
        }
        Lanes::combine(values, 1, warp_lanes, add{});
        for (int i = 0; i < width; ++i) finish<Memory>(params, s[i], values[i][0]);
    }

private:
    static constexpr int step = warp_lanes * lane_elements;

    template <class Memory>
    static RW_HD RW_INLINE void load_scores(const softmax_params& params, const state& s, std::int64_t column,
                                            lane_values& x) {
        const float* const scores = params.buffers.scores;
        load_lane<Wide, Memory>(scores + s.row * params.sizes.keys + column, params.keys - column, x);
    }

    template <class Memory>
    static RW_HD RW_INLINE float row_max(const softmax_params& params, state& s, std::int64_t index) {
        const auto [item, lane] = detail::divide(index, warp_lanes);
        const auto [head, row] = detail::divide(item, params.rows);
        s.row = head * params.sizes.queries + row;
        s.visible = detail::within(params.visible + row, 0, params.keys);
        s.first = lane * lane_elements;
        float result = no_score;
        for (std::int64_t column = s.first; column < s.visible; column += step) {
            lane_values x;
            load_scores<Memory>(params, s, column, x);
            RW_UNROLL
            for (int i = 0; i < lane_elements; ++i) {
                if (column + i < s.visible) result = larger_number{}(result, x[i] * params.scale);
            }
        }
        return result;
    }

    template <class Memory>
    static RW_HD RW_INLINE void update_row_max(const softmax_params& params, state& s, float row_max) {
        s.row_max = row_max;
        if (params.first) return;
        const float* const states = params.buffers.states + 2 * s.row;
        const float before = detail::load_one<float, Memory>(states);
        s.total = detail::load_one<float, Memory>(states + 1);
        s.row_max = larger_number{}(before, row_max);
        s.rescale = exp2_of(before - s.row_max);
    }

    template <class Memory>
    static RW_HD RW_INLINE float write_weights(const softmax_params& params, const state& s) {
        float total = 0;
        for (std::int64_t column = s.first; column < params.keys; column += step) {
            lane_values x;
            load_scores<Memory>(params, s, column, x);
            RW_UNROLL
            for (int i = 0; i < lane_elements; ++i)
                x[i] = column + i < s.visible ? exp2_of(x[i] * params.scale - s.row_max) : 0;
            store_lane<Wide, Memory>(params.type, params.buffers.weights, s.row * params.sizes.keys + column,
                                     params.keys - column, x);
            total += sum_of_neighbours(x);
        }
        return total;
    }

    template <class Memory>
    static RW_HD RW_INLINE void finish(const softmax_params& params, const state& s, float total) {
        if (s.first == 0)
            detail::store_elements<float, Memory>(params.buffers.states + 2 * s.row,
                                                  {s.row_max, RW_FMA(s.total, s.rescale, total)});
        if (params.first || s.rescale == 1) return;
        for (std::int64_t column = s.first; column < params.head_dim; column += step) {
            lane_values x;
            float* const sums = params.buffers.sums + s.row * params.head_dim + column;
            load_lane<Wide, Memory>(static_cast<const float*>(sums), params.head_dim - column, x);
            RW_UNROLL
            for (int i = 0; i < lane_elements; ++i) x[i] *= s.rescale;
            store_lane<Wide, Memory>(sums, params.head_dim - column, x);
        }
    }
};

template <class F>
void with_body(const softmax_params& params, const F& f) {
    with_width<softmax_body>(params.wide, f);
}

/// Parameters of the division of the sums of all blocks by the sums of weights, which gives the output.
struct finish_params : chunk_launch {
    block_buffers buffers;
    block_sizes sizes;
    tensor out;  ///< [rows, heads, head_dim]

    template <bool Wide, class Memory>
    RW_HD RW_INLINE void run_thread(std::int64_t index) const {
        const auto [item, chunk] = detail::divide(index, chunks);
        const auto [row, head] = detail::divide(item, out.heads);
        if (row >= out.tokens) return;
        const std::int64_t from = head * sizes.queries + row, element = chunk * lane_elements;
        const std::int64_t left = out.head_dim - element;
        const float total = detail::load_one<float, Memory>(static_cast<const float*>(buffers.states) + 2 * from + 1);
        const float factor = total == 0 ? 0 : 1 / total;
        lane_values x;
        load_lane<Wide, Memory>(static_cast<const float*>(buffers.sums) + from * out.head_dim + element, left, x);
        RW_UNROLL
        for (int i = 0; i < lane_elements; ++i) x[i] *= factor;
        store_lane<Wide, Memory>(out.type, out.data, row * out.stride_token + head * out.stride_head + element, left,
                                 x);
    }
};

}  // namespace ropewalk::llama::gpu
