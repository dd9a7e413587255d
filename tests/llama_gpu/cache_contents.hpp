/// @file  Key-value caches with random contents, and the float64 reference of attention over them.
#pragma once

#include <vector>

#include <ropewalk/llama/gpu/sequences.hpp>

#include "support/random.hpp"

namespace test {

inline constexpr ropewalk::cache_type cache_types[] = {ropewalk::cache_type::f32, ropewalk::cache_type::f16,
                                                       ropewalk::cache_type::bf16, ropewalk::cache_type::f8e4m3,
                                                       ropewalk::cache_type::i8};
enum class cache_axes { nhd, hnd, padded };

/// Keys or values. Decodes its contents by the definition of the types, without the library's conversions.
class cache_contents {
public:
    struct extents {
        std::int64_t pages = 1, page_size = 1, heads = 1, head_dim = 2;
    };
    cache_contents(ropewalk::cache_type type, const extents& size, cache_axes axes, random& numbers);

    [[nodiscard]] ropewalk::gpu::cache_tensor tensor();
    template <class Log>
    void watch(Log& log) {
        log.watch(bytes_.data(), bytes_.size());
        if (!scales_.empty()) log.watch(scales_.data(), scales_.size() * sizeof(float));
    }
    [[nodiscard]] const std::vector<unsigned char>& bytes() const { return bytes_; }
    [[nodiscard]] const std::vector<float>& scales() const { return scales_; }
    [[nodiscard]] double at(std::int64_t page, std::int64_t token, std::int64_t head, std::int64_t element) const;
    /// Fills a token with NaNs: in its elements, or for int8 in its scales.
    void poison(std::int64_t page, std::int64_t token);

private:
    [[nodiscard]] std::int64_t element_of(std::int64_t page, std::int64_t token, std::int64_t head) const;
    [[nodiscard]] std::size_t scale_of(std::int64_t page, std::int64_t token, std::int64_t head) const;

    ropewalk::gpu::cache_tensor shape_;
    std::vector<unsigned char> bytes_;
    std::vector<float> scales_;
};

/// Sequences of a call, as vectors that a device can copy.
struct batch_case {
    std::vector<std::int32_t> starts, past, table;
    std::int64_t count = 0, tokens = 0, most_tokens = 1, most_pages = 0;

    /// The sequences with their memory at the given addresses; without a table there is one page per sequence.
    [[nodiscard]] ropewalk::llama::gpu::sequences at(const std::int32_t* starts_at, const std::int32_t* past_at,
                                                     const std::int32_t* table_at) const {
        return {starts.empty() ? nullptr : starts_at,
                past_at,
                count,
                most_tokens,
                {table.empty() ? nullptr : table_at, most_pages, most_pages}};
    }
    [[nodiscard]] ropewalk::llama::gpu::sequences on_host() const {
        return at(starts.data(), past.data(), table.data());
    }
    [[nodiscard]] std::int64_t past_of(std::int64_t sequence) const { return past[static_cast<std::size_t>(sequence)]; }
    [[nodiscard]] std::int64_t start_of(std::int64_t sequence) const {
        return starts.empty() ? sequence : starts[static_cast<std::size_t>(sequence)];
    }
    [[nodiscard]] std::int64_t tokens_of(std::int64_t sequence) const {
        return starts.empty() ? 1 : start_of(sequence + 1) - start_of(sequence);
    }
    /// Returns the page of an entry, or −1.
    [[nodiscard]] std::int64_t page_of(std::int64_t sequence, std::int64_t entry, std::int64_t page_size,
                                       std::int64_t pages) const;
};

/// Ragged sequences over pages in random order: `pages` per sequence with a table, else one per sequence.
batch_case random_batch(std::int64_t sequences, std::int64_t most_tokens, std::int64_t page_size, std::int64_t pages,
                        bool table, random& numbers);

/// softmax(scale · q kᵀ) v of every row, and the largest |v| in its sum. Rows outside all sequences equal q.
struct exact_attention {
    std::vector<double> rows, largest;
};
exact_attention attention_of(const std::vector<double>& q, std::int64_t heads, cache_contents& k, cache_contents& v,
                             const batch_case& batch, double scale);

}  // namespace test
