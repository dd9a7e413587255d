// Prefill attention by blocks of queries and keys over matrix products, for sequences whose lengths the host knows.
#pragma once

#include "ropewalk/llama/gpu/attend_plan.hpp"
#include "ropewalk/llama/gpu/matrix_view.hpp"

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
        const cache_slot slot = batch.slot_of(sequence, first + entry);
        const bool exists = slot.page >= 0;
        lane_values x;
        const std::int64_t start = exists ? detail::element_of(from, slot, head) + element : 0;
        detail::with_cache_type(from.type, [&]<CacheElement E>(E /*type*/) {
            load_lane<Wide, Memory>(static_cast<const E*>(from.data) + start, exists ? left : 0, x);
        });
        const float scale = exists && from.scales != nullptr ? detail::scale_of<Memory>(from, slot, head) : from.scale;
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
        // Lane 0 replaces the states that all lanes have read.
        Lanes::order_memory();
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

/// Plans the copy of entries [first, first + count) of a sequence, out of a checked cache, to [heads, stride,
/// head_dim].
inline gather_cache_params make_gather_cache(const cache_tensor& from, const sequence_reader& batch,
                                             std::int64_t sequence, std::int64_t first, std::int64_t count, void* out,
                                             element_type type, std::int64_t stride) {
    gather_cache_params params;
    params.from = detail::with_factor(from), params.batch = batch;
    params.sequence = sequence, params.first = first, params.count = count;
    params.out = out, params.type = type, params.stride = stride;
    params.wide = detail::allows_wide(from);
    params.set_chunks(count * from.heads, from.head_dim);
    return params;
}

namespace detail {

/// A checked call by blocks, with the backend that runs its kernels.
template <class Backend>
struct block_attention {
    Backend& backend;
    const tensor &q, &out;
    const kv_cache& cache;
    const sequence_reader batch;
    const float scale;  ///< of the scores, with log2 e
    const block_buffers& buffers;
    const block_sizes& sizes;
    /// A product reads a contiguous cache of the queries' type in place.
    const bool in_place = batch.slots.source == cache_slots::kind::by_sequence && cache.k.type == cache_type_of(q.type);

    void run(std::int64_t sequence, const sequence_rows& part) const {
        for (std::int64_t row = 0; row < part.tokens; row += sizes.queries) {
            const std::int64_t rows = std::min(sizes.queries, part.tokens - row), past = part.past + row;
            for (std::int64_t key = 0; key < past + rows; key += sizes.keys) {
                const std::int64_t keys = std::min(sizes.keys, past + rows - key);
                score(part.first + row, rows, operand_of(cache.k, buffers.keys, sequence, key, keys), keys);
                softmax(rows, keys, past + 1 - key, key == 0);
                add_values(rows, operand_of(cache.v, buffers.values, sequence, key, keys), keys, key == 0);
            }
            finish(part.first + row, rows);
        }
    }

    static void* at(void* data, std::int64_t element, element_type type) {
        return static_cast<char*>(data) + element * static_cast<std::int64_t>(size_of(type));
    }
    [[nodiscard]] std::int64_t shared() const { return q.heads / cache.k.heads; }

    /// Keys or values [key, key + keys) as a product reads them: in the cache, or copied to `to`.
    operand operand_of(const cache_tensor& from, void* to, std::int64_t sequence, std::int64_t key,
                       std::int64_t keys) const {
        if (in_place)
            return {at(from.data, sequence * from.stride_page + key * from.stride_token, q.type), q.type,
                    from.stride_token, from.stride_head};
        backend.run(make_gather_cache(from, batch, sequence, key, keys, to, q.type, sizes.keys));
        return {to, q.type, from.head_dim, sizes.keys * from.head_dim};
    }

    /// Heads that share keys take one product each, over the batch of key heads.
    void score(std::int64_t first, std::int64_t rows, const operand& k, std::int64_t keys) const {
        const std::int64_t block = sizes.queries * sizes.keys;
        for (std::int64_t head = 0; head < shared(); ++head) {
            const std::int64_t start = first * q.stride_token + head * q.stride_head;
            backend.multiply({.a = {at(q.data, start, q.type), q.type, q.stride_token, shared() * q.stride_head},
                              .b = k,
                              .c = {buffers.scores + head * block, element_type::f32, sizes.keys, shared() * block},
                              .m = rows,
                              .n = keys,
                              .k = q.head_dim,
                              .batch = cache.k.heads});
        }
    }

    void softmax(std::int64_t rows, std::int64_t keys, std::int64_t visible, bool first) const {
        softmax_params params;
        params.buffers = buffers, params.sizes = sizes, params.type = q.type, params.scale = scale;
        params.rows = rows, params.keys = keys, params.head_dim = q.head_dim;
        params.visible = visible, params.first = first;
        // The last access of a row may exceed its keys: the row is padded, and nothing reads the padding.
        params.wide = q.head_dim % lane_elements == 0;
        params.set_warps(q.heads * rows);
        backend.run(params);
    }

    void add_values(std::int64_t rows, const operand& v, std::int64_t keys, bool first) const {
        const std::int64_t block = sizes.queries * sizes.keys, sums = sizes.queries * q.head_dim;
        for (std::int64_t head = 0; head < shared(); ++head)
            backend.multiply({.a = {at(buffers.weights, head * block, q.type), q.type, sizes.keys, shared() * block},
                              .b = v,
                              .c = {buffers.sums + head * sums, element_type::f32, q.head_dim, shared() * sums},
                              .m = rows,
                              .n = q.head_dim,
                              .k = keys,
                              .batch = cache.k.heads,
                              .transposed = false,
                              .beta = first ? 0.0F : 1.0F});
    }

    void finish(std::int64_t first, std::int64_t rows) const {
        finish_params params;
        params.buffers = buffers, params.sizes = sizes, params.out = out;
        params.out.data = at(out.data, first * out.stride_token, out.type), params.out.tokens = rows;
        params.wide = q.head_dim % lane_elements == 0 && detail::allows_access(out, 16);
        params.set_chunks(rows * q.heads, q.head_dim);
        backend.run(params);
    }
};

}  // namespace detail

/// The attention of make_attend(), by matrix products over blocks, for sequences whose lengths the host knows: rows of
/// each sequence of the batch in `known`. backend.multiply() computes the products; backend.run() executes the kernels
/// between them. Scores and sums are float32. Weights, and entries of caches of another type, are rounded to the type
/// of the queries. Every key must lie on a page that exists, and the values of later tokens must be numbers, because a
/// product multiplies them by 0. The output may be q.
template <class Backend>
void attend_by_blocks(Backend& backend, const tensor& q, const tensor& out, const kv_cache& cache,
                      const sequences& batch, std::span<const sequence_rows> known, double scale,
                      const workspace& space, const block_sizes& sizes = {}) {
    detail::check_attention(q, out, cache, batch, scale);
    RW_EXPECTS(sizes.queries > 0 && sizes.keys > 0 && sizes.keys % lane_elements == 0,
               "blocks of {} queries and {} keys: keys must be a multiple of {}", sizes.queries, sizes.keys,
               lane_elements);
    RW_EXPECTS(std::ssize(known) == batch.count, "the rows of {} sequences are known, the batch has {}", known.size(),
               batch.count);
    const sequence_reader reader = detail::reader_of(batch, q.tokens, cache.k);
    for (std::size_t i = 0; i < known.size(); ++i) {
        const auto [first, tokens, past] = known[i];
        RW_EXPECTS(
            first >= 0 && tokens >= 0 && first + tokens <= q.tokens && past >= 0 && past + tokens <= reader.capacity,
            "sequence {} of {} has rows [{}, {} + {}) of {} and entries from {} on of {}", i, known.size(), first,
            first, tokens, q.tokens, past, reader.capacity);
    }
    const block_buffers buffers(space.data, q.type, q.heads, cache.k.heads, q.head_dim, sizes);
    RW_EXPECTS(space.data != nullptr && space.bytes >= buffers.bytes, "blocks need a workspace of {} bytes, got {}",
               buffers.bytes, space.bytes);
    if (q.elements() == 0) return;
    const detail::block_attention<Backend> call{
        backend, q, out, cache, reader, static_cast<float>(scale * 1.44269504088896340736), buffers, sizes};
    for (std::size_t i = 0; i < known.size(); ++i) call.run(static_cast<std::int64_t>(i), known[i]);
}

}  // namespace ropewalk::llama::gpu
