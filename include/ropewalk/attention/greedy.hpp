// Greedy generation by a decoder, whatever it runs on.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "ropewalk/attention/batch.hpp"

namespace ropewalk::attention {

/// What a decoder says of its tokens one after the other. Model derives from this and has config() and
/// add_tokens(segment, ids, cache), once with and once without a span of logits for what the last token predicts.
template <class Model>
class greedy {
public:
    /// Adds tokens to a sequence in chunks of at most `chunk`, and returns the likeliest next one. Calls
    /// progress(tokens so far) behind every chunk. Memory for activations grows with the chunk alone.
    template <class Cache, class Progress>
    std::int32_t prefill(std::span<const std::int32_t> token_ids, Cache& cache, int sequence, std::int64_t chunk,
                         const Progress& progress) {
        RW_EXPECTS(!token_ids.empty() && chunk > 0, "a prompt needs a token and chunks a size, got {} and {}",
                   token_ids.size(), chunk);
        const auto count = static_cast<std::int64_t>(token_ids.size());
        const std::int64_t whole = cache.tokens(sequence) + count;
        scores_.resize(static_cast<std::size_t>(self().config().vocabulary));
        for (std::int64_t start = 0; start < count; start += chunk) {
            const segment one{sequence, std::min(chunk, count - start), whole};
            const auto part = token_ids.subspan(static_cast<std::size_t>(start), static_cast<std::size_t>(one.tokens));
            if (start + one.tokens < count) {
                self().add_tokens(one, part, cache);
            } else {
                self().add_tokens(one, part, cache, scores_);
            }
            progress(start + one.tokens);
        }
        return static_cast<std::int32_t>(std::max_element(scores_.begin(), scores_.end()) - scores_.begin());
    }
    template <class Cache>
    std::int32_t prefill(std::span<const std::int32_t> token_ids, Cache& cache, int sequence,
                         std::int64_t chunk = 512) {
        return prefill(token_ids, cache, sequence, chunk, [](std::int64_t /*tokens*/) {});
    }

    /// Adds one token and returns the likeliest next one.
    template <class Cache>
    std::int32_t decode(std::int32_t token_id, Cache& cache, int sequence) {
        return prefill({&token_id, 1}, cache, sequence, 1);
    }

    /// The `count` likeliest tokens behind a prompt, one after the other: greedy decoding.
    template <class Cache>
    std::vector<std::int32_t> generate(std::span<const std::int32_t> prompt, std::int64_t count, Cache& cache,
                                       int sequence, std::int64_t chunk = 512) {
        std::vector<std::int32_t> tokens;
        if (count <= 0) return tokens;
        tokens.push_back(prefill(prompt, cache, sequence, chunk));
        while (static_cast<std::int64_t>(tokens.size()) < count)
            tokens.push_back(decode(tokens.back(), cache, sequence));
        return tokens;
    }

private:
    friend Model;  // nobody else derives
    greedy() = default;

    Model& self() { return static_cast<Model&>(*this); }

    std::vector<float> scores_;
};

}  // namespace ropewalk::attention
