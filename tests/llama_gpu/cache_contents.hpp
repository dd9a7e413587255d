/// @file  Key-value caches that hold random numbers, and the float64 reference of attention over them.
#pragma once

#include <vector>

#include <ropewalk/llama/gpu/sequences.hpp>

#include "support/random.hpp"

namespace test {

enum class cache_axes { nhd, hnd, padded };

/// Keys or values. Decodes what it holds by the definition of the types, without the library's conversions.
class cache_contents {
public:
    struct extents {
        std::int64_t pages = 1, page_size = 1, heads = 1, head_dim = 2;
    };
    cache_contents(ropewalk::gpu::cache_type type, const extents& size, cache_axes where, random& numbers);

    [[nodiscard]] ropewalk::gpu::cache_tensor tensor();
    template <class Log>
    void watch(Log& log) {
        log.watch(bytes_.data(), bytes_.size());
        if (!scales_.empty()) log.watch(scales_.data(), scales_.size() * sizeof(float));
    }
    [[nodiscard]] const std::vector<unsigned char>& bytes() const { return bytes_; }
    [[nodiscard]] const std::vector<float>& scales() const { return scales_; }
    [[nodiscard]] double at(std::int64_t page, std::int64_t token, std::int64_t head, std::int64_t element) const;
    /// Makes every element of a token a NaN, where the type has one.
    void poison(std::int64_t page, std::int64_t token);

private:
    [[nodiscard]] std::int64_t element_of(std::int64_t page, std::int64_t token, std::int64_t head) const;

    ropewalk::gpu::cache_tensor shape_;
    std::vector<unsigned char> bytes_;
    std::vector<float> scales_;
};

/// Sequences of a call with what device memory holds of them.
struct batch_case {
    std::vector<std::int32_t> starts, past, table;
    ropewalk::llama::gpu::sequences batch;
    ropewalk::llama::gpu::page_table pages;
    std::int64_t tokens = 0;

    [[nodiscard]] std::int64_t past_of(std::int64_t sequence) const {
        return past.empty() ? 0 : past[static_cast<std::size_t>(sequence)];
    }
    [[nodiscard]] std::int64_t start_of(std::int64_t sequence) const {
        return starts.empty() ? sequence : starts[static_cast<std::size_t>(sequence)];
    }
    /// The page of an entry; −1: none.
    [[nodiscard]] std::int64_t page_of(std::int64_t sequence, std::int64_t entry, std::int64_t page_size,
                                       std::int64_t all) const;
};

/// Ragged sequences over pages in no order; `pages` of them for each sequence, or a page a sequence.
batch_case random_batch(std::int64_t sequences, std::int64_t most_tokens, std::int64_t page_size, std::int64_t pages,
                        bool table, random& numbers);

/// softmax(scale · q kᵀ) v of every row, and the largest |v| that it sums. Rows of no sequence stay as they are.
struct exact_attention {
    std::vector<double> rows, largest;
};
exact_attention attention_of(const std::vector<double>& q, std::int64_t heads, cache_contents& k, cache_contents& v,
                             const batch_case& batch, double scale);

}  // namespace test
