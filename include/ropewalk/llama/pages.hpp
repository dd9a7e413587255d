// The pages of a key-value cache and the sequences that have them, wherever their memory is.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "ropewalk/core/cache_type.hpp"
#include "ropewalk/encoding.hpp"
#include "ropewalk/llama/config.hpp"

namespace ropewalk::llama {

/// Where a page keeps one layer: keys [kv_heads, page_tokens, head_dim], values likewise, and for int8 a float scale
/// [kv_heads, page_tokens] of each. Offsets in bytes from the beginning of a page.
struct page_layout {
    cache_type type = cache_type::f32;
    std::int64_t page_tokens = 0, kv_heads = 0, head_dim = 0;
    std::int64_t k = 0, v = 0;
    std::int64_t k_scales = 0, v_scales = 0;  ///< i8 alone
};

/// How a cache keeps keys and values.
struct cache_options {
    /// f32, f16, bf16 or i8 (a scale a token and head). f32 for a scheme that changes with every token: rope_schedule.
    cache_type type = cache_type::f16;
    /// Tokens a page. A contiguous cache on the CPU has pages as long as its longest sequence: memory that no token has
    /// reached is not touched, so costs nothing until then.
    std::int64_t page_tokens = 256;
    std::int64_t most_tokens = 0;  ///< over all sequences, in whole pages; 0: as many as memory holds
};

/// Any number of sequences, and the pages that each of them has. A page holds page_tokens tokens of one sequence in
/// every layer; a sequence takes pages as it grows, and gives them back for others when it shrinks or ends. Page is
/// what names one: an address, a number.
template <class Page>
class paged_sequences {
public:
    /// Throws ropewalk::error for a type that the stacks do not read, or sizes that are not positive.
    explicit paged_sequences(const model_config& config, const cache_options& chosen) : chosen_(chosen) {
        config.validate();
        RW_EXPECTS(chosen.type != cache_type::f8e4m3, "a stack's cache keeps f32, f16, bf16 or i8, got {}",
                   to_string(chosen.type));
        RW_EXPECTS(chosen.page_tokens > 0 && chosen.page_tokens <= std::int64_t{1} << 24 && chosen.most_tokens >= 0,
                   "page_tokens must lie in [1, 2^24] and most_tokens not be negative, got {} and {}",
                   chosen.page_tokens, chosen.most_tokens);
        // Each extent may be 2^24: two of them multiply, four do not.
        constexpr std::int64_t most_elements = std::int64_t{1} << 56;
        RW_EXPECTS(config.layers * config.kv_heads <= most_elements / (chosen.page_tokens * config.head_dim),
                   "a page of {} tokens in {} layers of {} heads of {} holds more than 2^56 numbers of keys",
                   chosen.page_tokens, config.layers, config.kv_heads, config.head_dim);
        layers_ = config.layers;
        const std::int64_t heads = config.kv_heads * chosen.page_tokens;
        const std::int64_t elements = whole_lines(heads * config.head_dim * size_of(chosen.type));
        const std::int64_t scales =
            chosen.type == cache_type::i8 ? whole_lines(heads * static_cast<std::int64_t>(sizeof(float))) : 0;
        first_ = {chosen.type, chosen.page_tokens, config.kv_heads, config.head_dim,
                  0,           elements,           2 * elements,    2 * elements + scales};
        layer_bytes_ = 2 * (elements + scales);
        token_bytes_ = 2 * config.layers * config.kv_heads *
                       (config.head_dim * size_of(chosen.type) +
                        (chosen.type == cache_type::i8 ? static_cast<std::int64_t>(sizeof(float)) : 0));
    }

    [[nodiscard]] const cache_options& options() const { return chosen_; }
    [[nodiscard]] std::int64_t layers() const { return layers_; }
    /// Bytes that a token takes in all layers.
    [[nodiscard]] std::int64_t bytes_per_token() const { return token_bytes_; }
    /// Bytes of a page, a multiple of 64.
    [[nodiscard]] std::int64_t page_bytes() const { return layers_ * layer_bytes_; }
    /// Bytes of the pages that sequences hold.
    [[nodiscard]] std::int64_t bytes_held() const {
        return (made_ - static_cast<std::int64_t>(free_.size())) * page_bytes();
    }

    /// Begins an empty sequence, by the lowest number that none has: it is free again after release().
    int add_sequence() {
        int number = 0;
        while (sequences_.contains(number)) ++number;
        sequences_[number];
        return number;
    }
    /// Ends a sequence: its pages serve others.
    void release(int sequence) {
        truncate(sequence, 0);
        sequences_.erase(sequence);
    }
    /// Forgets all but the first `tokens` tokens: a prompt begins anew, a speculation was wrong.
    void truncate(int sequence, std::int64_t tokens) {
        held& one = at(sequence);
        RW_EXPECTS(tokens >= 0 && tokens <= one.tokens, "sequence {} has {} tokens and cannot keep {}", sequence,
                   one.tokens, tokens);
        const std::int64_t pages = pages_for(tokens);
        for (auto page = static_cast<std::size_t>(pages); page < one.pages.size(); ++page)
            free_.push_back(one.pages[page]);
        one.pages.resize(static_cast<std::size_t>(pages));
        one.tokens = tokens;
    }

    [[nodiscard]] std::int64_t tokens(int sequence) const { return at(sequence).tokens; }
    /// [⌈tokens / page_tokens⌉ or more], in order of the sequence.
    [[nodiscard]] const Page* pages(int sequence) const { return at(sequence).pages.data(); }

    /// What the keys of a sequence are encoded with; null while it has none.
    [[nodiscard]] const std::shared_ptr<const Encoding>& encoding(int sequence) const { return at(sequence).encoding; }
    void set_encoding(int sequence, const std::shared_ptr<const Encoding>& encoding) {
        at(sequence).encoding = encoding;
    }

    /// Says that `tokens` tokens of the sequence are in the cache now, in every layer.
    void advance_to(int sequence, std::int64_t tokens) { at(sequence).tokens = tokens; }

    /// Where pages keep one layer.
    [[nodiscard]] page_layout layout(std::int64_t layer) const {
        page_layout there = first_;
        for (std::int64_t* const offset : {&there.k, &there.v, &there.k_scales, &there.v_scales})
            *offset += layer * layer_bytes_;
        return there;
    }

    [[nodiscard]] std::int64_t pages_for(std::int64_t tokens) const {
        return tokens / chosen_.page_tokens + (tokens % chosen_.page_tokens > 0 ? 1 : 0);  // no sum that overflows
    }

protected:
    static constexpr std::int64_t line = 64;

    /// Takes pages until the sequence holds `tokens` tokens. Where none are free, make(n) is to give() n of them.
    template <class Make>
    void take(int sequence, std::int64_t tokens, const Make& make) {
        held& one = at(sequence);
        RW_EXPECTS(tokens >= 0, "sequence {} cannot hold {} tokens", sequence, tokens);
        const std::int64_t more = pages_for(tokens) - static_cast<std::int64_t>(one.pages.size());
        if (more <= 0) return;
        const std::int64_t new_pages = more - static_cast<std::int64_t>(free_.size());
        RW_EXPECTS(new_pages <= std::numeric_limits<std::int64_t>::max() / page_bytes() - made_,
                   "sequence {} needs {} tokens, whose bytes 64 bits do not count", sequence, tokens);
        const std::int64_t whole = made_ + (new_pages > 0 ? new_pages : 0);
        RW_EXPECTS(chosen_.most_tokens == 0 || whole <= pages_for(chosen_.most_tokens),
                   "sequence {} needs {} tokens, which takes {} pages of {} tokens; the cache has {} tokens in all",
                   sequence, tokens, whole, chosen_.page_tokens, chosen_.most_tokens);
        make_room(one.pages, one.pages.size() + static_cast<std::size_t>(more));
        make_room(free_, static_cast<std::size_t>(whole));  // giving back must not throw
        if (new_pages > 0) make(new_pages);
        for (std::int64_t page = 0; page < more; ++page) {
            one.pages.push_back(free_.back());
            free_.pop_back();
        }
    }
    /// A new page, for whoever wants one.
    void give(Page page) {
        free_.push_back(page);
        ++made_;
    }
    [[nodiscard]] std::int64_t pages_made() const { return made_; }

private:
    static constexpr std::int64_t whole_lines(std::int64_t bytes) { return (bytes + line - 1) / line * line; }

    struct held {
        std::vector<Page> pages;
        std::int64_t tokens = 0;
        std::shared_ptr<const Encoding> encoding;
    };

    /// Twice as much as there was, at least: a page at a time must not copy all of them each time.
    static void make_room(std::vector<Page>& pages, std::size_t count) {
        if (count > pages.capacity()) pages.reserve(count < 2 * pages.capacity() ? 2 * pages.capacity() : count);
    }
    [[nodiscard]] held& at(int sequence) { return const_cast<held&>(std::as_const(*this).at(sequence)); }
    [[nodiscard]] const held& at(int sequence) const {
        const auto found = sequences_.find(sequence);
        RW_EXPECTS(found != sequences_.end(), "the cache has no sequence {}, it has {}", sequence, sequences_.size());
        return found->second;
    }

    cache_options chosen_;
    std::int64_t layers_ = 0, layer_bytes_ = 0, token_bytes_ = 0, made_ = 0;
    page_layout first_;
    std::vector<Page> free_;
    std::map<int, held> sequences_;
};

}  // namespace ropewalk::llama
