// A key-value cache in pages: sequences and their pages in any memory, and the cache of the CPU.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "ropewalk/core/cache_type.hpp"
#include "ropewalk/encoding.hpp"
#include "ropewalk/llama/config.hpp"

namespace ropewalk::llama {

/// One layer in a page: keys [kv_heads, page_tokens, head_dim], values likewise, and for i8 a float scale
/// [kv_heads, page_tokens] of each. Offsets are bytes from the beginning of the page.
struct page_layout {
    cache_type type = cache_type::f32;
    std::int64_t page_tokens = 0, kv_heads = 0, head_dim = 0;
    std::int64_t k = 0, v = 0;
    std::int64_t k_scales = 0, v_scales = 0;  ///< i8 only
};

struct cache_options {
    /// f32, f16, bf16 or i8 (one scale per token and head). Use f32 for a policy that changes with every token: see
    /// rope_schedule.
    cache_type type = cache_type::f16;
    /// Tokens per page. A contiguous cache has one page per sequence, as long as the longest sequence. On the CPU
    /// memory that no token has reached is not touched and costs nothing.
    std::int64_t page_tokens = 256;
    std::int64_t most_tokens = 0;  ///< limit over all sequences, rounded up to pages; 0: no limit
};

/// Sequences and their pages. A page holds page_tokens tokens of one sequence in every layer. A sequence takes pages as
/// it grows and gives them back when it is truncated or released. `Page` identifies a page: an address or a number.
template <class Page>
class paged_sequences {
public:
    /// Throws ropewalk::error for a type that the stacks do not read, or sizes that are not positive.
    explicit paged_sequences(const model_config& config, const cache_options& options)
        : options_(options), layers_(config.layers) {
        config.validate();
        RW_EXPECTS(!is_f8(options.type), "the cache of a stack must be f32, f16, bf16 or i8, got {}",
                   to_string(options.type));
        RW_EXPECTS(options.page_tokens > 0 && options.page_tokens <= std::int64_t{1} << 24 && options.most_tokens >= 0,
                   "page_tokens must lie in [1, 2^24] and most_tokens not be negative, got {} and {}",
                   options.page_tokens, options.most_tokens);
        // An extent is at most 2^24: products of two fit in 64 bits, products of four may not.
        constexpr std::int64_t limit = std::int64_t{1} << 56;
        RW_EXPECTS(config.layers * config.kv_heads <= limit / (options.page_tokens * config.head_dim),
                   "a page of {} tokens in {} layers of {} heads of {} holds more than 2^56 numbers of keys",
                   options.page_tokens, config.layers, config.kv_heads, config.head_dim);
        const std::int64_t scale_bytes = options.type == cache_type::i8 ? sizeof(float) : 0;
        const std::int64_t head_bytes = config.head_dim * size_of(options.type);
        const std::int64_t heads = config.kv_heads * options.page_tokens;
        const std::int64_t elements = whole_lines(heads * head_bytes), scales = whole_lines(heads * scale_bytes);
        first_layer_ = {.type = options.type,
                        .page_tokens = options.page_tokens,
                        .kv_heads = config.kv_heads,
                        .head_dim = config.head_dim,
                        .k = 0,
                        .v = elements,
                        .k_scales = 2 * elements,
                        .v_scales = 2 * elements + scales};
        layer_bytes_ = 2 * (elements + scales);
        token_bytes_ = 2 * config.layers * config.kv_heads * (head_bytes + scale_bytes);
    }

    [[nodiscard]] const cache_options& options() const { return options_; }
    [[nodiscard]] std::int64_t layers() const { return layers_; }
    /// Bytes per token over all layers.
    [[nodiscard]] std::int64_t bytes_per_token() const { return token_bytes_; }
    /// Bytes of a page, a multiple of 64.
    [[nodiscard]] std::int64_t page_bytes() const { return layers_ * layer_bytes_; }
    /// Bytes of the pages that sequences hold.
    [[nodiscard]] std::int64_t bytes_held() const { return (page_count_ - std::ssize(free_)) * page_bytes(); }

    /// Begins an empty sequence with the lowest unused number. release() frees a number.
    int add_sequence() {
        int number = 0;
        while (sequences_.contains(number)) ++number;
        sequences_[number];
        return number;
    }
    /// Ends a sequence and frees its pages.
    void release(int sequence) {
        truncate(sequence, 0);
        sequences_.erase(sequence);
    }
    /// Forgets all but the first `tokens` tokens and frees the other pages.
    void truncate(int sequence, std::int64_t tokens) {
        entry& s = at(sequence);
        RW_EXPECTS(tokens >= 0 && tokens <= s.tokens, "sequence {} has {} tokens and cannot keep {}", sequence,
                   s.tokens, tokens);
        const auto kept = s.pages.begin() + std::min<std::ptrdiff_t>(pages_for(tokens), std::ssize(s.pages));
        free_.insert(free_.end(), kept, s.pages.end());
        s.pages.erase(kept, s.pages.end());
        s.tokens = tokens;
    }

    [[nodiscard]] std::int64_t tokens(int sequence) const { return at(sequence).tokens; }
    /// Pages in order of the sequence, [⌈tokens / page_tokens⌉ or more].
    [[nodiscard]] const Page* pages(int sequence) const { return at(sequence).pages.data(); }

    /// Encoding of the keys of a sequence; null before its first call.
    [[nodiscard]] const std::shared_ptr<const Encoding>& encoding(int sequence) const { return at(sequence).encoding; }
    void set_encoding(int sequence, const std::shared_ptr<const Encoding>& encoding) {
        at(sequence).encoding = encoding;
    }

    /// Records that the cache holds `tokens` tokens of the sequence, in every layer.
    void advance_to(int sequence, std::int64_t tokens) { at(sequence).tokens = tokens; }

    [[nodiscard]] page_layout layout(std::int64_t layer) const {
        page_layout result = first_layer_;
        for (std::int64_t* const offset : {&result.k, &result.v, &result.k_scales, &result.v_scales})
            *offset += layer * layer_bytes_;
        return result;
    }

    [[nodiscard]] std::int64_t pages_for(std::int64_t tokens) const {
        return tokens / options_.page_tokens + (tokens % options_.page_tokens > 0 ? 1 : 0);  // cannot overflow
    }

protected:
    static constexpr std::int64_t line = 64;

    /// Takes pages until the sequence holds `tokens` tokens. If too few are free, make(n) must call add_page() n times.
    template <class Make>
    void reserve_pages(int sequence, std::int64_t tokens, const Make& make) {
        entry& s = at(sequence);
        RW_EXPECTS(tokens >= 0, "sequence {} cannot hold {} tokens", sequence, tokens);
        const std::int64_t more = pages_for(tokens) - std::ssize(s.pages);
        if (more <= 0) return;
        const std::int64_t new_pages = more - std::ssize(free_);
        RW_EXPECTS(new_pages <= std::numeric_limits<std::int64_t>::max() / page_bytes() - page_count_,
                   "sequence {} needs {} tokens, whose bytes overflow 64 bits", sequence, tokens);
        const std::int64_t all_pages = page_count_ + std::max<std::int64_t>(new_pages, 0);
        RW_EXPECTS(options_.most_tokens == 0 || all_pages <= pages_for(options_.most_tokens),
                   "sequence {} needs {} tokens, which takes {} pages of {} tokens; the cache has {} tokens in all",
                   sequence, tokens, all_pages, options_.page_tokens, options_.most_tokens);
        grow(s.pages, s.pages.size() + static_cast<std::size_t>(more));
        grow(free_, static_cast<std::size_t>(all_pages));  // so that giving pages back cannot throw
        if (new_pages > 0) make(new_pages);
        s.pages.insert(s.pages.end(), free_.rbegin(), free_.rbegin() + more);
        free_.erase(free_.end() - more, free_.end());
    }
    void add_page(Page page) {
        free_.push_back(page);
        ++page_count_;
    }
    [[nodiscard]] std::int64_t page_count() const { return page_count_; }

private:
    struct entry {
        std::vector<Page> pages;
        std::int64_t tokens = 0;
        std::shared_ptr<const Encoding> encoding;
    };

    static constexpr std::int64_t whole_lines(std::int64_t bytes) { return (bytes + line - 1) / line * line; }

    /// Reserves at least twice the capacity, so that growing page by page does not copy all pages each time.
    static void grow(std::vector<Page>& pages, std::size_t count) {
        if (count > pages.capacity()) pages.reserve(std::max(count, 2 * pages.capacity()));
    }
    [[nodiscard]] entry& at(int sequence) { return const_cast<entry&>(std::as_const(*this).at(sequence)); }
    [[nodiscard]] const entry& at(int sequence) const {
        const auto found = sequences_.find(sequence);
        RW_EXPECTS(found != sequences_.end(), "the cache has no sequence {}, it has {}", sequence, sequences_.size());
        return found->second;
    }

    cache_options options_;
    std::int64_t layers_, layer_bytes_ = 0, token_bytes_ = 0, page_count_ = 0;
    page_layout first_layer_;
    std::vector<Page> free_;
    std::map<int, entry> sequences_;
};

/// The cache of the CPU: every page is its own memory.
class kv_cache : public paged_sequences<std::byte*> {
public:
    /// Throws ropewalk::error for a type that the stack does not read, or sizes that are not positive.
    explicit kv_cache(const model_config& config, const cache_options& options = {})
        : paged_sequences(config, options) {}

    /// Takes pages until the sequence has room for `tokens` tokens; their number stays. Throws, with nothing taken, if
    /// that exceeds the limit of the cache.
    void reserve(int sequence, std::int64_t tokens) {
        reserve_pages(sequence, tokens, [this](std::int64_t pages) {
            for (std::int64_t page = 0; page < pages; ++page) {
                page_memory memory(static_cast<std::byte*>(
                    ::operator new[](static_cast<std::size_t>(page_bytes()), std::align_val_t{line})));
                memory_.push_back(std::move(memory));
                add_page(memory_.back().get());
            }
        });
    }

private:
    struct aligned_delete {
        void operator()(std::byte* bytes) const { ::operator delete[](bytes, std::align_val_t{line}); }
    };
    using page_memory = std::unique_ptr<std::byte[], aligned_delete>;

    std::vector<page_memory> memory_;
};

}  // namespace ropewalk::llama
