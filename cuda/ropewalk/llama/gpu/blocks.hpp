// Attention by blocks of queries and keys over matrix products: for prompts, whose lengths the host knows.
#pragma once

#include "ropewalk/llama/gpu/attend_plan.hpp"
#include "ropewalk/llama/gpu/block_jobs.hpp"
#include "ropewalk/llama/gpu/product.hpp"

namespace ropewalk::llama::gpu {

/// One sequence of a call as the host knows it: rows [first, first + tokens) of the queries, entries from `past` on.
struct known_sequence {
    std::int64_t sequence = 0;  ///< the row of the page table, or the page
    std::int64_t first = 0, tokens = 0, past = 0;
};

/// Queries and keys of a block. Multiples of lane_elements, so that rows of scores stay aligned.
struct block_sizes {
    std::int64_t queries = 512, keys = 512;
};

/// What a call by blocks keeps in its workspace. No S × S matrix: its size does not follow the sequences' lengths.
struct block_room {
    void* keys = nullptr;     ///< [kv_heads, sizes.keys, head_dim] of the queries' type
    void* values = nullptr;   ///< likewise
    float* scores = nullptr;  ///< [heads, sizes.queries, sizes.keys]
    void* weights = nullptr;  ///< likewise, of the queries' type
    float* sums = nullptr;    ///< [heads, sizes.queries, head_dim]
    float* states = nullptr;  ///< [heads, sizes.queries, 2]
    std::int64_t bytes = 0;
};

namespace detail {

/// Hands out pieces of a workspace, each aligned to 256 bytes; of no workspace, only counts them.
class carver {
public:
    explicit carver(void* data) : data_(static_cast<char*>(data)) {}
    template <class T = void>
    T* take(std::int64_t elements, std::int64_t size = sizeof(std::conditional_t<std::is_void_v<T>, char, T>)) {
        char* const piece = data_ == nullptr ? nullptr : data_ + used_;
        used_ += ropewalk::gpu::detail::divide_up(elements * size, alignment) * alignment;
        return reinterpret_cast<T*>(piece);
    }
    [[nodiscard]] std::int64_t used() const { return used_; }
    static constexpr std::int64_t alignment = 256;

private:
    char* data_;
    std::int64_t used_ = 0;
};

}  // namespace detail

inline block_room make_block_room(void* data, element_type type, std::int64_t heads, std::int64_t kv_heads,
                                  std::int64_t head_dim, const block_sizes& sizes) {
    detail::carver from(data);
    const auto size = static_cast<std::int64_t>(size_of(type));
    block_room made;
    made.keys = from.take(kv_heads * sizes.keys * head_dim, size);
    made.values = from.take(kv_heads * sizes.keys * head_dim, size);
    made.scores = from.take<float>(heads * sizes.queries * sizes.keys);
    made.weights = from.take(heads * sizes.queries * sizes.keys, size);
    made.sums = from.take<float>(heads * sizes.queries * head_dim);
    made.states = from.take<float>(heads * sizes.queries * 2);
    made.bytes = from.used();
    return made;
}

namespace detail {

/// Where gathered entries go: head by head, `stride` entries from one to the next.
struct gather_target {
    void* data = nullptr;
    element_type type = element_type::f32;
    std::int64_t stride = 0;
};

/// Entries [first, first + count) of a sequence, out of a cache that has been checked.
inline gather_job make_gather(const cache_tensor& from, const slot_reader& pages, std::int64_t sequence,
                              std::int64_t first, std::int64_t count, const gather_target& to) {
    gather_job job;
    job.from = source_of(from), job.pages = pages;
    job.sequence = sequence, job.first = first, job.count = count;
    job.out = to.data, job.type = to.type, job.stride = to.stride;
    job.heads = static_cast<std::int32_t>(from.heads), job.head_dim = static_cast<std::int32_t>(from.head_dim);
    job.runs = static_cast<std::int32_t>(ropewalk::gpu::detail::divide_up(from.head_dim, lane_elements));
    job.wide = takes_wide(from);
    job.threads = threads_of_items(count * from.heads * job.runs);
    return job;
}

/// One call by blocks: its tensors, its room and what runs its kernels.
template <class Device>
class block_attention {
public:
    block_attention(Device& device, const tensor& q, const tensor& out, const kv_cache& cache, const page_table& pages,
                    std::int64_t sequences, double scale, const block_room& room, const block_sizes& sizes)
        : device_(device),
          q_(q),
          out_(out),
          cache_(cache),
          pages_(source_of(cache.k, pages, sequences)),
          // A product reads a contiguous cache of its own type where it lies.
          direct_(pages.table == nullptr && cache.k.type == cache_type_of_element(q.type)),
          scale_(static_cast<float>(scale * 1.44269504088896340736)),
          room_(room),
          sizes_(sizes) {}

    void run(const known_sequence& one) const {
        for (std::int64_t row = 0; row < one.tokens; row += sizes_.queries) {
            const std::int64_t rows = std::min(sizes_.queries, one.tokens - row), past = one.past + row;
            for (std::int64_t key = 0; key < past + rows; key += sizes_.keys) {
                const std::int64_t keys = std::min(sizes_.keys, past + rows - key);
                score(one, row, rows, key, keys);
                soften(rows, keys, past + 1 - key, key == 0);
                add_values(one, rows, key, keys);
            }
            finish(one.first + row, rows);
        }
    }

private:
    static cache_type cache_type_of_element(element_type type) {
        return type == element_type::f32   ? cache_type::f32
               : type == element_type::f16 ? cache_type::f16
                                           : cache_type::bf16;
    }
    static void* at(void* data, std::int64_t element, element_type type) {
        return static_cast<char*>(data) + element * static_cast<std::int64_t>(size_of(type));
    }
    [[nodiscard]] std::int64_t shared() const { return q_.heads / cache_.k.heads; }

    /// Keys or values [key, key + keys) as a product reads them.
    operand gathered(const cache_tensor& from, void* to, const known_sequence& one, std::int64_t key,
                     std::int64_t keys) const {
        if (direct_)
            return {at(from.data, one.sequence * from.stride_page + key * from.stride_token, q_.type), q_.type,
                    from.stride_token, from.stride_head};
        device_.run(make_gather(from, pages_, one.sequence, key, keys, {to, q_.type, sizes_.keys}));
        return {to, q_.type, from.head_dim, sizes_.keys * from.head_dim};
    }

    /// Heads that share keys take one product each, of a batch of key heads.
    void score(const known_sequence& one, std::int64_t row, std::int64_t rows, std::int64_t key,
               std::int64_t keys) const {
        const operand k = gathered(cache_.k, room_.keys, one, key, keys);
        const std::int64_t block = sizes_.queries * sizes_.keys;
        for (std::int64_t head = 0; head < shared(); ++head) {
            const std::int64_t first = (one.first + row) * q_.stride_token + head * q_.stride_head;
            device_.multiply({.a = {at(q_.data, first, q_.type), q_.type, q_.stride_token, shared() * q_.stride_head},
                              .b = k,
                              .c = {room_.scores + head * block, element_type::f32, sizes_.keys, shared() * block},
                              .m = rows,
                              .n = keys,
                              .k = q_.head_dim,
                              .batch = cache_.k.heads});
        }
    }

    void soften(std::int64_t rows, std::int64_t keys, std::int64_t sees, bool first) const {
        soften_job job;
        job.scores = room_.scores, job.weights = room_.weights, job.type = q_.type;
        job.sums = room_.sums, job.states = room_.states, job.scale = scale_;
        job.heads = q_.heads, job.rows = rows, job.keys = keys;
        job.stride_rows = sizes_.queries, job.stride = sizes_.keys, job.head_dim = q_.head_dim;
        job.sees = sees, job.first = first;
        // Rows end inside an access where keys do, which its padding allows: nobody reads that.
        job.wide = q_.head_dim % lane_elements == 0;
        job.threads = threads_of_warps(q_.heads * rows);
        device_.run(job);
    }

    void add_values(const known_sequence& one, std::int64_t rows, std::int64_t key, std::int64_t keys) const {
        const operand v = gathered(cache_.v, room_.values, one, key, keys);
        const std::int64_t block = sizes_.queries * sizes_.keys, sums = sizes_.queries * q_.head_dim;
        for (std::int64_t head = 0; head < shared(); ++head)
            device_.multiply({.a = {at(room_.weights, head * block, q_.type), q_.type, sizes_.keys, shared() * block},
                              .b = v,
                              .c = {room_.sums + head * sums, element_type::f32, q_.head_dim, shared() * sums},
                              .m = rows,
                              .n = q_.head_dim,
                              .k = keys,
                              .batch = cache_.k.heads,
                              .transposed = false,
                              .beta = key == 0 ? 0.0F : 1.0F});
    }

    void finish(std::int64_t first, std::int64_t rows) const {
        finish_job job;
        job.sums = room_.sums, job.states = room_.states, job.type = out_.type;
        job.out = at(out_.data, first * out_.stride_token, out_.type);
        job.out_token = out_.stride_token, job.out_head = out_.stride_head;
        job.heads = q_.heads, job.rows = rows, job.stride_rows = sizes_.queries, job.head_dim = q_.head_dim;
        job.runs = ropewalk::gpu::detail::divide_up(q_.head_dim, lane_elements);
        job.wide = q_.head_dim % lane_elements == 0 && ropewalk::gpu::detail::allows_access(out_, 16);
        job.threads = threads_of_items(rows * q_.heads * job.runs);
        device_.run(job);
    }

    Device& device_;
    tensor q_, out_;
    kv_cache cache_;
    slot_reader pages_;
    bool direct_;
    float scale_;
    block_room room_;
    block_sizes sizes_;
};

}  // namespace detail

/// The same attention as attend(), for sequences whose lengths the host knows, by matrix products of blocks:
/// device.multiply() computes them, device.run() executes the kernels between. Scores and sums are float32; weights and
/// what caches of another type hold are rounded to the type of the queries. A key must lie on a page that exists, and
/// values of later tokens must be numbers: a product multiplies them by 0. The output may be q..
template <class Device>
void attend_by_blocks(Device& device, const tensor& q, const tensor& out, const kv_cache& cache,
                      const page_table& pages, std::int64_t sequences, std::span<const known_sequence> known,
                      double scale, const workspace& room, const block_sizes& sizes = {}) {
    std::int64_t tokens = 0;
    for (const known_sequence& one : known) tokens = std::max(tokens, one.tokens);
    static constexpr std::int32_t none[] = {0, 0};
    detail::check_attention(q, out, cache, pages, {none, nullptr, sequences, tokens, 0}, scale);
    RW_EXPECTS(sizes.queries > 0 && sizes.keys > 0 && sizes.keys % lane_elements == 0,
               "blocks of {} queries and {} keys: keys come by {}", sizes.queries, sizes.keys, lane_elements);
    const std::int64_t capacity = detail::capacity_of(cache.k, pages);
    for (const known_sequence& one : known)
        RW_EXPECTS(one.sequence >= 0 && one.sequence < sequences && one.first >= 0 && one.tokens >= 0 &&
                       one.first + one.tokens <= q.tokens && one.past >= 0 && one.past + one.tokens <= capacity,
                   "sequence {} of {}: rows [{}, {} + {}) of {}, entries from {} on of {}", one.sequence, sequences,
                   one.first, one.first, one.tokens, q.tokens, one.past, capacity);
    const block_room rooms = make_block_room(room.data, q.type, q.heads, cache.k.heads, q.head_dim, sizes);
    RW_EXPECTS(room.data != nullptr && room.bytes >= rooms.bytes, "blocks want a workspace of {} bytes, got {}",
               rooms.bytes, room.bytes);
    if (q.elements() == 0) return;
    const detail::block_attention<Device> call(device, q, out, cache, pages, sequences, scale, rooms, sizes);
    for (const known_sequence& one : known) call.run(one);
}

}  // namespace ropewalk::llama::gpu
