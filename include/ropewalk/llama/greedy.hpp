// Greedy generation by a decoder, whatever it runs on.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "ropewalk/llama/batch.hpp"

namespace ropewalk::llama {

/// What a decoder says of its tokens one after the other. Model derives from this and has config() and
/// add_tokens(segment, ids, cache), once with and once without a span of logits for what the last token predicts.
template <class Model>
class greedy {
public:
    /// Adds tokens to a sequence in chunks of at most `chunk`, and returns the likeliest next one. Calls
    /// progress(tokens so far) behind every chunk. Memory for activations grows with the chunk alone. What is thrown
    /// leaves the sequence with the tokens that it had; an id outside the vocabulary and a cache without room for the
    /// whole prompt throw ropewalk::error before the first chunk.
    template <class Cache, class Progress>
    std::int32_t prefill(std::span<const std::int32_t> token_ids, Cache& cache, int sequence, std::int64_t chunk,
                         const Progress& progress) {
        RW_EXPECTS(!token_ids.empty() && chunk > 0, "a prompt needs a token and chunks a size, got {} and {}",
                   token_ids.size(), chunk);
        const auto count = static_cast<std::int64_t>(token_ids.size());
        detail::check_ids(self().config(), token_ids);
        const std::int64_t whole = cache.tokens(sequence) + count;
        scores_.resize(static_cast<std::size_t>(self().config().vocabulary));
        all_or_nothing(cache, sequence, whole, [&] {
            for (std::int64_t start = 0; start < count; start += chunk) {
                const segment one{sequence, std::min(chunk, count - start), whole};
                const auto part =
                    token_ids.subspan(static_cast<std::size_t>(start), static_cast<std::size_t>(one.tokens));
                if (start + one.tokens < count) {
                    self().add_tokens(one, part, cache);
                } else {
                    self().add_tokens(one, part, cache, scores_);
                }
                progress(start + one.tokens);
            }
        });
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

    /// The `count` likeliest tokens behind a prompt, one after the other: greedy decoding. The last of them is not put
    /// into the cache. What is thrown leaves the sequence with the tokens that it had; a cache without room for the
    /// prompt and all but the last throws ropewalk::error before the prompt is read.
    template <class Cache>
    std::vector<std::int32_t> generate(std::span<const std::int32_t> prompt, std::int64_t count, Cache& cache,
                                       int sequence, std::int64_t chunk = 512) {
        std::vector<std::int32_t> tokens;
        if (count <= 0) return tokens;
        const std::int64_t known = cache.tokens(sequence) + std::ssize(prompt);
        RW_EXPECTS(count <= std::numeric_limits<std::int64_t>::max() - known,
                   "{} tokens behind {} of sequence {} and its prompt are more than 64 bits count", count, known,
                   sequence);
        detail::check_ids(self().config(), prompt);
        all_or_nothing(cache, sequence, known + count - 1, [&] {
            tokens.push_back(prefill(prompt, cache, sequence, chunk));
            while (std::ssize(tokens) < count) tokens.push_back(decode(tokens.back(), cache, sequence));
        });
        return tokens;
    }

private:
    friend Model;  // nobody else derives
    greedy() = default;

    /// Takes room for the `whole` tokens that `work` makes of a sequence, then does it.
    template <class Cache, class Work>
    static void all_or_nothing(Cache& cache, int sequence, std::int64_t whole, const Work& work) {
        const std::int64_t before = cache.tokens(sequence);
        cache.reserve(sequence, whole);
        try {
            work();
        } catch (...) {
            cache.truncate(sequence, before);
            throw;
        }
    }

    Model& self() { return static_cast<Model&>(*this); }

    std::vector<float> scores_;
};

}  // namespace ropewalk::llama
