// Kernels of prefill attention between the matrix products of a block of queries and keys.
#pragma once

#include "ropewalk/llama/gpu/kernel.hpp"
#include "ropewalk/llama/gpu/sequences.hpp"

namespace ropewalk::llama::gpu {

/// Queries and keys per block. Keys are a multiple of lane_elements, so that rows of scores stay aligned.
struct block_sizes {
    std::int64_t queries = 512, keys = 512;
};

/// Hands out pieces of a workspace, each aligned to 256 bytes. Without a workspace it only counts them.
class carver {
public:
    explicit carver(void* data) : data_(static_cast<char*>(data)) {}
    template <class T = void>
    T* take(std::int64_t elements, std::int64_t size = sizeof(std::conditional_t<std::is_void_v<T>, char, T>)) {
        char* const piece = data_ == nullptr ? nullptr : data_ + used_;
        used_ += detail::divide_up(elements * size, alignment) * alignment;
        return reinterpret_cast<T*>(piece);
    }
    [[nodiscard]] std::int64_t used() const { return used_; }
    static constexpr std::int64_t alignment = 256;

private:
    char* data_;
    std::int64_t used_ = 0;
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

    block_buffers() = default;
    block_buffers(void* workspace, element_type type, std::int64_t heads, std::int64_t kv_heads, std::int64_t head_dim,
                  const block_sizes& sizes) {
        carver from(workspace);
        const auto size = static_cast<std::int64_t>(size_of(type));
        keys = from.take(kv_heads * sizes.keys * head_dim, size);
        values = from.take(kv_heads * sizes.keys * head_dim, size);
        scores = from.take<float>(heads * sizes.queries * sizes.keys);
        weights = from.take(heads * sizes.queries * sizes.keys, size);
        sums = from.take<float>(heads * sizes.queries * head_dim);
        states = from.take<float>(heads * sizes.queries * 2);
        bytes = from.used();
    }
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
        const cache_slot place = batch.place_of(sequence, first + entry);
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

    template <bool Wide, class Lanes, class Memory>
    RW_HD RW_INLINE void run_lanes(std::int64_t index) const {
        constexpr int width = Lanes::width;
        state s[width];
        float values[width][1];
        for (int i = 0; i < width; ++i) values[i][0] = row_max<Wide, Memory>(s[i], index + i);
        Lanes::combine(values, 1, warp_lanes, larger_number{});
        for (int i = 0; i < width; ++i) {
            update_row_max<Memory>(s[i], values[i][0]);
            values[i][0] = write_weights<Wide, Memory>(s[i]);
        }
        Lanes::combine(values, 1, warp_lanes, add{});
        for (int i = 0; i < width; ++i) finish<Wide, Memory>(s[i], values[i][0]);
    }

private:
    struct state {
        std::int64_t row = 0;  ///< of all heads
        std::int64_t visible = 0;
        std::int64_t first = 0;  ///< this lane's first column
        float row_max = no_score, rescale = 1, total = 0;
    };
    static constexpr int step = warp_lanes * lane_elements;

    template <bool Wide, class Memory>
    RW_HD RW_INLINE void load_scores(const state& s, std::int64_t column, lane_values& x) const {
        const float* const scores = buffers.scores + s.row * sizes.keys + column;
        load_lane<Wide, Memory>(scores, keys - column, x);
    }

    template <bool Wide, class Memory>
    RW_HD RW_INLINE float row_max(state& s, std::int64_t index) const {
        const auto [item, lane] = detail::divide(index, warp_lanes);
        const auto [head, row] = detail::divide(item, rows);
        s.row = head * sizes.queries + row;
        s.visible = detail::within(visible + row, 0, keys);
        s.first = lane * lane_elements;
        float result = no_score;
        for (std::int64_t column = s.first; column < s.visible; column += step) {
            lane_values x;
            load_scores<Wide, Memory>(s, column, x);
            RW_UNROLL
            for (int i = 0; i < lane_elements; ++i) {
                if (column + i < s.visible) result = larger_number{}(result, x[i] * scale);
            }
        }
        return result;
    }

    template <class Memory>
    RW_HD RW_INLINE void update_row_max(state& s, float row_max) const {
        s.row_max = row_max;
        if (first) return;
        const float* const states = buffers.states + 2 * s.row;
        const float before = detail::load_one<float, Memory>(states);
        s.total = detail::load_one<float, Memory>(states + 1);
        s.row_max = larger_number{}(before, row_max);
        s.rescale = exp2_of(before - s.row_max);
    }

    template <bool Wide, class Memory>
    RW_HD RW_INLINE float write_weights(const state& s) const {
        float total = 0;
        for (std::int64_t column = s.first; column < keys; column += step) {
            lane_values x;
            load_scores<Wide, Memory>(s, column, x);
            RW_UNROLL
            for (int i = 0; i < lane_elements; ++i)
                x[i] = column + i < s.visible ? exp2_of(x[i] * scale - s.row_max) : 0;
            store_lane<Wide, Memory>(type, buffers.weights, s.row * sizes.keys + column, keys - column, x);
            total += sum_of_neighbours(x);
        }
        return total;
    }

    template <bool Wide, class Memory>
    RW_HD RW_INLINE void finish(const state& s, float total) const {
        if (s.first == 0)
            detail::store_elements<float, Memory>(buffers.states + 2 * s.row,
                                                  {s.row_max, RW_FMA(s.total, s.rescale, total)});
        if (first || s.rescale == 1) return;
        for (std::int64_t column = s.first; column < head_dim; column += step) {
            lane_values x;
            float* const sums = buffers.sums + s.row * head_dim + column;
            load_lane<Wide, Memory>(static_cast<const float*>(sums), head_dim - column, x);
            RW_UNROLL
            for (int i = 0; i < lane_elements; ++i) x[i] *= s.rescale;
            store_lane<Wide, Memory>(sums, head_dim - column, x);
        }
    }
};

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
