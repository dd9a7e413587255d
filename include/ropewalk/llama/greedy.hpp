// Greedy generation, for a decoder on the CPU or on a device.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "ropewalk/llama/batch.hpp"

namespace ropewalk::llama {

/// Base of a `Model` with config() and add_tokens(segment, ids, cache, logits), which skips the head if logits is
/// empty.
template <class Model>
class greedy {
public:
    /// Adds tokens to a sequence in chunks of at most `chunk` and returns the likeliest next token. Calls
    /// progress(tokens so far) after every chunk. Memory for activations depends on `chunk` only. An exception leaves
    /// the tokens of the sequence as they were. Throws ropewalk::error before the first chunk for an id outside the
    /// vocabulary or a cache without room for the whole prompt.
    template <class Cache, class Progress>
    std::int32_t prefill(std::span<const std::int32_t> token_ids, Cache& cache, int sequence, std::int64_t chunk,
                         const Progress& progress) {
        RW_EXPECTS(!token_ids.empty() && chunk > 0,
                   "prompt must not be empty and chunk must be positive, got {} tokens and a chunk of {}",
                   token_ids.size(), chunk);
        const std::int64_t count = std::ssize(token_ids);
        detail::check_ids(self().config(), token_ids);
        const std::int64_t whole = cache.tokens(sequence) + count;
        logits_.resize(static_cast<std::size_t>(self().config().vocabulary));
        all_or_nothing(cache, sequence, whole, [&] {
            for (std::int64_t start = 0; start < count; start += chunk) {
                const std::int64_t tokens = std::min(chunk, count - start), end = start + tokens;
                self().add_tokens({sequence, tokens, whole},
                                  token_ids.subspan(static_cast<std::size_t>(start), static_cast<std::size_t>(tokens)),
                                  cache, end < count ? std::span<float>{} : std::span(logits_));
                progress(end);
            }
        });
        return static_cast<std::int32_t>(std::max_element(logits_.begin(), logits_.end()) - logits_.begin());
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

    /// Returns the `count` tokens that greedy decoding puts after a prompt; the cache does not hold the last of them.
    /// An exception leaves the tokens of the sequence as they were. Throws ropewalk::error before reading the prompt
    /// for an id outside the vocabulary or a cache without room for all tokens.
    template <class Cache>
    std::vector<std::int32_t> generate(std::span<const std::int32_t> prompt, std::int64_t count, Cache& cache,
                                       int sequence, std::int64_t chunk = 512) {
        std::vector<std::int32_t> tokens;
        if (count <= 0) return tokens;
        const std::int64_t known = cache.tokens(sequence) + std::ssize(prompt);
        RW_EXPECTS(count <= std::numeric_limits<std::int64_t>::max() - known,
                   "{} tokens after the {} of sequence {} and its prompt overflow 64 bits", count, known, sequence);
        detail::check_ids(self().config(), prompt);
        all_or_nothing(cache, sequence, known + count - 1, [&] {
            tokens.push_back(prefill(prompt, cache, sequence, chunk));
            while (std::ssize(tokens) < count) tokens.push_back(decode(tokens.back(), cache, sequence));
        });
        return tokens;
    }

private:
    friend Model;
    greedy() = default;

    /// Reserves room for `whole` tokens of the sequence and calls run(). Restores the sequence if that throws.
    template <class Cache, class Run>
    static void all_or_nothing(Cache& cache, int sequence, std::int64_t whole, const Run& run) {
        const std::int64_t before = cache.tokens(sequence);
        cache.reserve(sequence, whole);
        try {
            run();
        } catch (...) {
            cache.truncate(sequence, before);
            throw;
        }
    }

    Model& self() { return static_cast<Model&>(*this); }

    std::vector<float> logits_;
};

}  // namespace ropewalk::llama
