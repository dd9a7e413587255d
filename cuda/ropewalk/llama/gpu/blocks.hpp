// Prefill attention by blocks of queries and keys over matrix products, for sequences whose lengths the host knows.
#pragma once

#include "ropewalk/llama/gpu/attend_plan.hpp"
#include "ropewalk/llama/gpu/block_kernels.hpp"
#include "ropewalk/llama/gpu/matrix_view.hpp"

namespace ropewalk::llama::gpu {

namespace detail {

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

}  // namespace detail

inline block_buffers make_block_buffers(void* data, element_type type, std::int64_t heads, std::int64_t kv_heads,
                                        std::int64_t head_dim, const block_sizes& sizes) {
    detail::carver from(data);
    const auto size = static_cast<std::int64_t>(size_of(type));
    block_buffers buffers;
    buffers.keys = from.take(kv_heads * sizes.keys * head_dim, size);
    buffers.values = from.take(kv_heads * sizes.keys * head_dim, size);
    buffers.scores = from.take<float>(heads * sizes.queries * sizes.keys);
    buffers.weights = from.take(heads * sizes.queries * sizes.keys, size);
    buffers.sums = from.take<float>(heads * sizes.queries * head_dim);
    buffers.states = from.take<float>(heads * sizes.queries * 2);
    buffers.bytes = from.used();
    return buffers;
}

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

/// One call by blocks: its tensors, its buffers and the backend that runs its kernels.
template <class Backend>
class block_attention {
public:
    block_attention(Backend& backend, const tensor& q, const tensor& out, const kv_cache& cache, const sequences& batch,
                    double scale, const block_buffers& buffers, const block_sizes& sizes)
        : backend_(backend),
          q_(q),
          out_(out),
          cache_(cache),
          batch_(reader_of(batch, q.tokens, cache.k)),
          // A product reads a contiguous cache of the queries' type in place.
          in_place_(batch.pages.table == nullptr && cache.k.type == cache_type_of(q.type)),
          scale_(static_cast<float>(scale * 1.44269504088896340736)),
          buffers_(buffers),
          sizes_(sizes) {}

    void run(std::int64_t sequence, const sequence_rows& part) const {
        for (std::int64_t row = 0; row < part.tokens; row += sizes_.queries) {
            const std::int64_t rows = std::min(sizes_.queries, part.tokens - row), past = part.past + row;
            for (std::int64_t key = 0; key < past + rows; key += sizes_.keys) {
                const std::int64_t keys = std::min(sizes_.keys, past + rows - key);
                score(part.first + row, rows, operand_of(cache_.k, buffers_.keys, sequence, key, keys), keys);
                softmax(rows, keys, past + 1 - key, key == 0);
                add_values(rows, operand_of(cache_.v, buffers_.values, sequence, key, keys), keys, key == 0);
            }
            finish(part.first + row, rows);
        }
    }

private:
    static cache_type cache_type_of(element_type type) {
        return type == element_type::f32   ? cache_type::f32
               : type == element_type::f16 ? cache_type::f16
                                           : cache_type::bf16;
    }
    static void* at(void* data, std::int64_t element, element_type type) {
        return static_cast<char*>(data) + element * static_cast<std::int64_t>(size_of(type));
    }
    [[nodiscard]] std::int64_t shared() const { return q_.heads / cache_.k.heads; }

    /// Keys or values [key, key + keys) as a product reads them: in the cache, or copied to `to`.
    operand operand_of(const cache_tensor& from, void* to, std::int64_t sequence, std::int64_t key,
                       std::int64_t keys) const {
        if (in_place_)
            return {at(from.data, sequence * from.stride_page + key * from.stride_token, q_.type), q_.type,
                    from.stride_token, from.stride_head};
        backend_.run(make_gather_cache(from, batch_, sequence, key, keys, to, q_.type, sizes_.keys));
        return {to, q_.type, from.head_dim, sizes_.keys * from.head_dim};
    }

    /// Heads that share keys take one product each, over the batch of key heads.
    void score(std::int64_t first, std::int64_t rows, const operand& k, std::int64_t keys) const {
        const std::int64_t block = sizes_.queries * sizes_.keys;
        for (std::int64_t head = 0; head < shared(); ++head) {
            const std::int64_t start = first * q_.stride_token + head * q_.stride_head;
            backend_.multiply({.a = {at(q_.data, start, q_.type), q_.type, q_.stride_token, shared() * q_.stride_head},
                               .b = k,
                               .c = {buffers_.scores + head * block, element_type::f32, sizes_.keys, shared() * block},
                               .m = rows,
                               .n = keys,
                               .k = q_.head_dim,
                               .batch = cache_.k.heads});
        }
    }

    void softmax(std::int64_t rows, std::int64_t keys, std::int64_t visible, bool first) const {
        softmax_params params;
        params.buffers = buffers_, params.sizes = sizes_, params.type = q_.type, params.scale = scale_;
        params.rows = rows, params.keys = keys, params.head_dim = q_.head_dim;
        params.visible = visible, params.first = first;
        // The last access of a row may exceed its keys: the row is padded, and nothing reads the padding.
        params.wide = q_.head_dim % lane_elements == 0;
        params.set_warps(q_.heads * rows);
        backend_.run(params);
    }

    void add_values(std::int64_t rows, const operand& v, std::int64_t keys, bool first) const {
        const std::int64_t block = sizes_.queries * sizes_.keys, sums = sizes_.queries * q_.head_dim;
        for (std::int64_t head = 0; head < shared(); ++head)
            backend_.multiply(
                {.a = {at(buffers_.weights, head * block, q_.type), q_.type, sizes_.keys, shared() * block},
                 .b = v,
                 .c = {buffers_.sums + head * sums, element_type::f32, q_.head_dim, shared() * sums},
                 .m = rows,
                 .n = q_.head_dim,
                 .k = keys,
                 .batch = cache_.k.heads,
                 .transposed = false,
                 .beta = first ? 0.0F : 1.0F});
    }

    void finish(std::int64_t first, std::int64_t rows) const {
        finish_params params;
        params.buffers = buffers_, params.sizes = sizes_, params.out = out_;
        params.out.data = at(out_.data, first * out_.stride_token, out_.type), params.out.tokens = rows;
        params.wide = q_.head_dim % lane_elements == 0 && detail::takes_access(out_, 16);
        params.set_chunks(rows * q_.heads, q_.head_dim);
        backend_.run(params);
    }

    Backend& backend_;
    tensor q_, out_;
    kv_cache cache_;
    sequence_reader batch_;
    bool in_place_;
    float scale_;
    block_buffers buffers_;
    block_sizes sizes_;
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
    const std::int64_t capacity = detail::reader_of(batch, q.tokens, cache.k).capacity;
    for (std::size_t i = 0; i < known.size(); ++i) {
        const auto [first, tokens, past] = known[i];
        RW_EXPECTS(first >= 0 && tokens >= 0 && first + tokens <= q.tokens && past >= 0 && past + tokens <= capacity,
                   "sequence {} of {} has rows [{}, {} + {}) of {} and entries from {} on of {}", i, known.size(),
                   first, first, tokens, q.tokens, past, capacity);
    }
    const block_buffers buffers = make_block_buffers(space.data, q.type, q.heads, cache.k.heads, q.head_dim, sizes);
    RW_EXPECTS(space.data != nullptr && space.bytes >= buffers.bytes, "blocks need a workspace of {} bytes, got {}",
               buffers.bytes, space.bytes);
    if (q.elements() == 0) return;
    const detail::block_attention<Backend> call(backend, q, out, cache, batch, scale, buffers, sizes);
    for (std::size_t i = 0; i < known.size(); ++i) call.run(static_cast<std::int64_t>(i), known[i]);
}

}  // namespace ropewalk::llama::gpu
