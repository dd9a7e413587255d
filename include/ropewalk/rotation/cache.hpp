// Key-value caches, and the cache slots of the tokens of a call, on the CPU and on a GPU.
#pragma once

#include <cstdint>
#include <span>

#include "ropewalk/core/cache_type.hpp"
#include "ropewalk/core/error.hpp"
#include "ropewalk/core/positions.hpp"
#include "ropewalk/core/view.hpp"

namespace ropewalk {

/// A non-owning view of the keys or the values of a cache: pages of page_size tokens of `heads` heads of head_dim
/// elements. Strides are in elements, and the elements of a head are contiguous. A contiguous cache has one page per
/// sequence, as long as the capacity of the cache.
struct cache_tensor {
    void* data = nullptr;  ///< null: absent
    cache_type type = cache_type::f32;
    std::int64_t pages = 0, page_size = 0, heads = 0, head_dim = 0;
    std::int64_t stride_page = 0, stride_token = 0, stride_head = 0;

    float scale = 1;                  ///< f8: the divisor of the elements, within 2^-64 and 2^64
    const float* scale_at = nullptr;  ///< f8: memory of the divisor, which replaces `scale` where it exists

    float* scales = nullptr;  ///< i8: [pages, page_size, heads] in any order
    std::int64_t scale_stride_page = 0, scale_stride_token = 0, scale_stride_head = 0;

    [[nodiscard]] constexpr bool exists() const { return data != nullptr; }
    /// Returns the number of elements, at most 2^63 − 1.
    [[nodiscard]] constexpr std::int64_t elements() const {
        return tensor{.batch = pages, .tokens = page_size, .heads = heads, .head_dim = head_dim}.elements();
    }
};

namespace detail {

/// Contiguous pages. Strides of tokens and heads are in units of head_dim elements.
template <CacheElement E>
constexpr cache_tensor make_cache(E* data, std::int64_t pages, std::int64_t page_size, std::int64_t heads,
                                  std::int64_t head_dim, float* scales, std::int64_t token, std::int64_t head) {
    const std::int64_t page = next_stride(page_size, heads);
    return {.data = data,
            .type = cache_type_of<E>(),
            .pages = pages,
            .page_size = page_size,
            .heads = heads,
            .head_dim = head_dim,
            .stride_page = next_stride(page, head_dim),
            .stride_token = next_stride(token, head_dim),
            .stride_head = next_stride(head, head_dim),
            .scales = scales,
            .scale_stride_page = page,
            .scale_stride_token = token,
            .scale_stride_head = head};
}

}  // namespace detail

/// A contiguous cache [pages, page_size, heads, head_dim]: NHD in vLLM, FlashInfer and TensorRT-LLM, or a plain [batch,
/// capacity, heads, head_dim]. `scales`, for int8 elements, is contiguous [pages, page_size, heads].
template <CacheElement E>
constexpr cache_tensor nhd_cache(E* data, std::int64_t pages, std::int64_t page_size, std::int64_t heads,
                                 std::int64_t head_dim, float* scales = nullptr) {
    return detail::make_cache(data, pages, page_size, heads, head_dim, scales, heads, 1);
}

/// A contiguous cache [pages, heads, page_size, head_dim]: HND, or a plain [batch, heads, capacity, head_dim]. `scales`
/// is contiguous [pages, heads, page_size].
template <CacheElement E>
constexpr cache_tensor hnd_cache(E* data, std::int64_t pages, std::int64_t heads, std::int64_t page_size,
                                 std::int64_t head_dim, float* scales = nullptr) {
    return detail::make_cache(data, pages, page_size, heads, head_dim, scales, 1, page_size);
}

/// Keys and values with the same pages. Either may be absent.
struct kv_cache {
    cache_tensor k, v;
};

/// The cache slot of each token of a call: a page and an entry of the page.
///
/// A negative slot number, such as -1, skips a token, and so does a negative entry. Slots in device memory are not
/// validated, and tokens whose slot lies outside the cache are not written: pages that do not exist, and entries beyond
/// the page or beyond the pages of the sequence. In host memory such slots are an error. Two tokens of one call must
/// not have the same slot.
struct cache_slots {
    enum class kind : std::uint8_t {
        none,
        by_sequence,  ///< sequence s has page s
        page_table,   ///< entry e of sequence s lies on page table[s, e / page_size]
        page_list,    ///< entry e of sequence s lies on page table[starts[s] + e / page_size], before starts[s + 1]
        mapping32,    ///< slot number page · page_size + entry of every token (vLLM's slot_mapping)
        mapping64,
    };

    kind source = kind::none;
    /// The index of each token in its sequence's part of the cache: offset, ids or cu_seqlens. The sequence is the
    /// batch row, or that of cu_seqlens.
    positions entries{};
    const std::int32_t* table = nullptr;  ///< [sequences, max_pages], or the pages of all sequences, max_pages of them
    std::int64_t sequences = 0, max_pages = 0, stride_sequence = 0;
    const std::int32_t* starts = nullptr;  ///< page_list: [sequences + 1]
    /// page_list: [sequences], the number of entries on the last page of each sequence. Where it exists, the tokens of
    /// the call are the last ones of their sequences, and `entries` is the cu_seqlens of the call.
    const std::int32_t* last_page_len = nullptr;
    const void* mapping = nullptr;  ///< [batch · tokens]
    std::int64_t count = 0;
};

/// Slots of a cache with one page per sequence: token t of the call goes to entry entries[t].
inline cache_slots by_sequence(const positions& entries) {
    return {.source = cache_slots::kind::by_sequence, .entries = entries};
}

/// Slots through a page table [sequences, max_pages]: token t of sequence s goes to entry entries[t] of the pages
/// table[s, ...]. Throws where the table cannot be split into equal rows.
inline cache_slots by_page_table(std::span<const std::int32_t> table, std::int64_t sequences,
                                 const positions& entries) {
    const auto size = static_cast<std::int64_t>(table.size());
    RW_EXPECTS(sequences > 0 && size % sequences == 0, "{} pages cannot be split into {} equal rows", size, sequences);
    return {.source = cache_slots::kind::page_table,
            .entries = entries,
            .table = table.data(),
            .sequences = sequences,
            .max_pages = size / sequences,
            .stride_sequence = size / sequences};
}

/// Slots through the pages of each sequence in one list, as FlashInfer's kv_indptr and kv_indices: those of sequence s
/// are indices[indptr[s]] to indices[indptr[s + 1] - 1]. Token t of the call goes to entry entries[t] of its sequence.
inline cache_slots by_page_list(std::span<const std::int32_t> indptr, std::span<const std::int32_t> indices,
                                const positions& entries) {
    RW_EXPECTS(!indptr.empty(), "indptr is empty; it has one entry more than there are sequences");
    return {.source = cache_slots::kind::page_list,
            .entries = entries,
            .table = indices.data(),
            .sequences = std::ssize(indptr) - 1,
            .max_pages = std::ssize(indices),
            .starts = indptr.data()};
}

/// The same where the tokens of the call are the last ones of their sequences: `starts` is the cu_seqlens of the call,
/// and last_page_len[s] the number of entries on the last page of sequence s, the tokens of the call included.
inline cache_slots by_page_list(std::span<const std::int32_t> indptr, std::span<const std::int32_t> indices,
                                std::span<const std::int32_t> last_page_len, const positions& starts) {
    cache_slots slots = by_page_list(indptr, indices, starts);
    RW_EXPECTS(starts.ragged(), "last_page_len needs the cu_seqlens of the call as its entries");
    RW_EXPECTS(std::ssize(last_page_len) == slots.sequences, "last_page_len has {} entries for {} sequences",
               last_page_len.size(), slots.sequences);
    slots.last_page_len = last_page_len.data();
    return slots;
}

/// Slots by number, page · page_size + entry, one per token of the call, batch row by batch row. -1 skips a token.
inline cache_slots by_mapping(std::span<const std::int64_t> mapping) {
    return {.source = cache_slots::kind::mapping64, .mapping = mapping.data(), .count = std::ssize(mapping)};
}
inline cache_slots by_mapping(std::span<const std::int32_t> mapping) {
    return {.source = cache_slots::kind::mapping32, .mapping = mapping.data(), .count = std::ssize(mapping)};
}

/// Slots keep a pointer to the table or the mapping: a temporary container is refused when it compiles.
template <detail::TemporaryBuffer Table>
cache_slots by_page_table(Table&& table, std::int64_t sequences, const positions& entries) = delete;
template <detail::TemporaryBuffer Mapping>
cache_slots by_mapping(Mapping&& mapping) = delete;

}  // namespace ropewalk
