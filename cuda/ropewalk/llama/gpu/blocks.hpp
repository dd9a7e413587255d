// Prefill attention by blocks of queries and keys over matrix products, for sequences whose lengths the host knows.
#pragma once

#include "ropewalk/llama/gpu/attend_plan.hpp"
#include "ropewalk/llama/gpu/block_kernels.hpp"
#include "ropewalk/llama/gpu/matrix_view.hpp"

namespace ropewalk::llama::gpu {

/// Plans the copy of entries [first, first + count) of a sequence, out of a checked cache, to [heads, stride,
/// head_dim].
inline gather_cache_params make_gather_cache(const cache_tensor& from, const sequence_reader& batch,
                                             std::int64_t sequence, std::int64_t first, std::int64_t count, void* out,
                                             element_type type, std::int64_t stride) {
    gather_cache_params params;
    params.from = detail::with_factor(from), params.batch = batch;
    params.sequence = sequence, params.first = first, params.count = count;
    params.out = out, params.type = type, params.stride = stride;
    params.wide = detail::takes_wide(from);
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

    static cache_type cache_type_of(element_type type) {
        return type == element_type::f32   ? cache_type::f32
               : type == element_type::f16 ? cache_type::f16
                                           : cache_type::bf16;
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
