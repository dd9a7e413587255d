// The key-value cache of a stack of layers in a device's memory.
#pragma once

#include <algorithm>
#include <limits>

#include "ropewalk/llama/device_backend.hpp"
#include "ropewalk/llama/kv_cache.hpp"

namespace ropewalk::llama {

/// Keys and values of any number of sequences. All pages lie in one pool, so that a page is a number: memory for
/// most_tokens where that is given; else the pool moves when it grows, to twice its size.
template <Machine M>
class device_cache : public paged_sequences<std::int32_t> {
public:
    /// Throws ropewalk::error for a type that the stack does not read, or sizes that are not positive. The machine must
    /// outlive the cache.
    device_cache(M& machine, const model_config& config, const cache_options& chosen = {})
        : paged_sequences(config, chosen), machine_(&machine), pool_(machine) {
        RW_EXPECTS(page_bytes() % size_of(chosen.type) == 0 && pages_for(chosen.most_tokens) < most_pages,
                   "{} tokens in pages of {} are more pages than have numbers", chosen.most_tokens, chosen.page_tokens);
    }

    /// Takes pages until the sequence holds `tokens` tokens, without changing how many it has. Throws, with nothing
    /// taken, where the cache may not grow so far.
    void reserve(int sequence, std::int64_t tokens) {
        reserve_pages(sequence, tokens, [this](std::int64_t pages) {
            grow(page_count() + pages);
            for (std::int64_t page = 0; page < pages; ++page) add_page(static_cast<std::int32_t>(page_count()));
        });
    }

    /// Bytes of the pool.
    [[nodiscard]] std::int64_t bytes_allocated() const { return pool_.bytes(); }

    /// Keys and values of one layer, as the kernels take them.
    [[nodiscard]] ropewalk::gpu::kv_cache layer(std::int64_t number) const {
        const page_layout there = layout(number);
        return {tensor_of(there, there.k, there.k_scales), tensor_of(there, there.v, there.v_scales)};
    }

private:
    static constexpr std::int64_t most_pages = std::numeric_limits<std::int32_t>::max();

    [[nodiscard]] std::int64_t pool_pages() const { return pool_.bytes() / page_bytes(); }

    void grow(std::int64_t pages) {
        if (pages <= pool_pages()) return;
        RW_EXPECTS(pages < most_pages, "{} pages are more than have numbers", pages);
        const std::int64_t most = pages_for(options().most_tokens);
        device_memory<M> larger(*machine_, (most > 0 ? most : std::max(pages, 2 * pool_pages())) * page_bytes());
        if (pool_.bytes() > 0) machine_->copy(larger.data(), pool_.data(), pool_.bytes());
        pool_ = std::move(larger);
    }

    [[nodiscard]] ropewalk::gpu::cache_tensor tensor_of(const page_layout& l, std::int64_t offset,
                                                        std::int64_t scales) const {
        ropewalk::gpu::cache_tensor made;
        char* const first = static_cast<char*>(pool_.data());
        const std::int64_t scale_bytes = sizeof(float);
        made.data = first + offset, made.type = l.type;
        made.pages = pool_pages(), made.page_size = l.page_tokens, made.heads = l.kv_heads, made.head_dim = l.head_dim;
        made.stride_page = page_bytes() / size_of(l.type), made.stride_token = l.head_dim;
        made.stride_head = l.page_tokens * l.head_dim;
        if (l.type != cache_type::i8) return made;
        made.scales = reinterpret_cast<float*>(first + scales);
        made.scale_stride_page = page_bytes() / scale_bytes, made.scale_stride_token = 1;
        made.scale_stride_head = l.page_tokens;
        return made;
    }

    M* machine_;
    device_memory<M> pool_;
};

}  // namespace ropewalk::llama
