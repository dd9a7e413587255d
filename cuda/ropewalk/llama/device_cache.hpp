// Key-value cache of a stack of layers in device memory.
#pragma once

#include <algorithm>
#include <limits>

#include "ropewalk/llama/device_backend.hpp"
#include "ropewalk/llama/kv_cache.hpp"

namespace ropewalk::llama {

/// Keys and values of any number of sequences. All pages lie in one pool, so that a page is a number. The pool has
/// memory for most_tokens if that is given; otherwise it moves when it grows, to twice its size.
template <DeviceBackend B>
class device_cache : public paged_sequences<std::int32_t> {
public:
    /// Throws ropewalk::error for a type that the stack does not read, or sizes that are not positive. The backend must
    /// outlive the cache.
    device_cache(B& backend, const model_config& config, const cache_options& options = {})
        : paged_sequences(config, options), backend_(&backend), pool_(backend) {
        RW_EXPECTS(page_bytes() % size_of(options.type) == 0 && pages_for(options.most_tokens) < most_pages,
                   "{} tokens in pages of {} exceed the 32 bits of page numbers", options.most_tokens,
                   options.page_tokens);
    }

    /// Takes pages until the sequence holds `tokens` tokens, without changing the number of its tokens. Throws, with
    /// nothing taken, if the cache may not grow so far.
    void reserve(int sequence, std::int64_t tokens) {
        reserve_pages(sequence, tokens, [this](std::int64_t pages) {
            grow(page_count() + pages);
            for (std::int64_t page = 0; page < pages; ++page) add_page(static_cast<std::int32_t>(page_count()));
        });
    }

    /// Bytes of the pool.
    [[nodiscard]] std::int64_t bytes_allocated() const { return pool_.bytes(); }

    /// Keys and values of one layer, as kernels take them.
    [[nodiscard]] ropewalk::gpu::kv_cache layer(std::int64_t number) const {
        const page_layout l = layout(number);
        return {tensor_of(l, l.k, l.k_scales), tensor_of(l, l.v, l.v_scales)};
    }

private:
    static constexpr std::int64_t most_pages = std::numeric_limits<std::int32_t>::max();

    [[nodiscard]] std::int64_t pool_pages() const { return pool_.bytes() / page_bytes(); }

    void grow(std::int64_t pages) {
        if (pages <= pool_pages()) return;
        RW_EXPECTS(pages < most_pages, "{} pages exceed the 32 bits of page numbers", pages);
        const std::int64_t most = pages_for(options().most_tokens);
        device_memory<B> larger(*backend_, (most > 0 ? most : std::max(pages, 2 * pool_pages())) * page_bytes());
        if (pool_.bytes() > 0) backend_->copy(larger.data(), pool_.data(), pool_.bytes());
        pool_ = std::move(larger);
    }

    [[nodiscard]] ropewalk::gpu::cache_tensor tensor_of(const page_layout& l, std::int64_t offset,
                                                        std::int64_t scales) const {
        char* const first = static_cast<char*>(pool_.data());
        const bool scaled = l.type == cache_type::i8;
        return {.data = first + offset,
                .type = l.type,
                .pages = pool_pages(),
                .page_size = l.page_tokens,
                .heads = l.kv_heads,
                .head_dim = l.head_dim,
                .stride_page = page_bytes() / size_of(l.type),
                .stride_token = l.head_dim,
                .stride_head = l.page_tokens * l.head_dim,
                .scales = scaled ? reinterpret_cast<float*>(first + scales) : nullptr,
                .scale_stride_page = page_bytes() / std::int64_t{sizeof(float)},
                .scale_stride_token = 1,
                .scale_stride_head = l.page_tokens};
    }

    B* backend_;
    device_memory<B> pool_;
};

}  // namespace ropewalk::llama
