// Greedy generation and losses of given tokens, for a decoder on the CPU or on a device.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "ropewalk/llama/batch.hpp"

namespace ropewalk::llama {

namespace detail {

/// Cross-entropy in nats of token `next` for finite logits [vocabulary]. The sum is float64.
inline double cross_entropy(std::span<const float> logits, std::int32_t next) {
    const float largest = *std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (const float logit : logits) sum += static_cast<double>(std::exp(logit - largest));
    return std::log(sum) + static_cast<double>(largest) - static_cast<double>(logits[static_cast<std::size_t>(next)]);
}

}  // namespace detail

/// Base of a `Model` with config() and add_tokens(segment, ids, cache, logits). Logits are [vocabulary] of the last
/// token, [tokens, vocabulary], or empty, which skips the head. add_tokens() throws, with position and layer, for
/// hidden states or logits that are not finite.
template <class Model>
class greedy {
public:
    /// Adds tokens to a sequence in chunks of at most `chunk` and returns the likeliest next token. Calls
    /// progress(tokens so far) after every chunk. Memory for activations depends on `chunk` only. An exception leaves
    /// the tokens of the sequence as they were. Throws ropewalk::error before the first chunk for an id outside the
    /// vocabulary or a cache without room for the whole prompt, and later, with position and layer, for a hidden state
    /// or a logit that is not finite.
    template <class Cache, class Progress>
    std::int32_t prefill(std::span<const std::int32_t> token_ids, Cache& cache, int sequence, std::int64_t chunk,
                         const Progress& progress) {
        logits_.resize(vocabulary());
        add_in_chunks(token_ids, cache, sequence, chunk, [&](const segment& part, auto ids, std::int64_t start) {
            const std::int64_t end = start + part.tokens;
            self().add_tokens(part, ids, cache, end < std::ssize(token_ids) ? std::span<float>{} : std::span(logits_));
            progress(end);
        });
        return static_cast<std::int32_t>(std::max_element(logits_.begin(), logits_.end()) - logits_.begin());
    }
    template <class Cache>
    std::int32_t prefill(std::span<const std::int32_t> token_ids, Cache& cache, int sequence,
                         std::int64_t chunk = 512) {
        return prefill(token_ids, cache, sequence, chunk, [](std::int64_t /*tokens*/) {});
    }

    /// Adds tokens to a sequence, as prefill() does, and returns the cross-entropy of the tokens that follow, in nats:
    /// next[i] follows token_ids[i], for all i < next.size(). With next = token_ids.subspan(1), these are the losses of
    /// a text. Memory for activations and logits depends on `chunk` only. Throws ropewalk::error as prefill() does, if
    /// there are more next tokens than tokens.
    template <class Cache, class Progress>
    std::vector<double> losses(std::span<const std::int32_t> token_ids, std::span<const std::int32_t> next,
                               Cache& cache, int sequence, std::int64_t chunk, const Progress& progress) {
        RW_EXPECTS(next.size() <= token_ids.size(), "{} next tokens for {} tokens", next.size(), token_ids.size());
        detail::check_ids(self().config(), next);
        std::vector<double> result(next.size());
        const std::int64_t wanted = std::ssize(next);
        add_in_chunks(token_ids, cache, sequence, chunk, [&](const segment& part, auto ids, std::int64_t start) {
            const std::int64_t rows = std::clamp<std::int64_t>(wanted - start, 0, part.tokens);
            logits_.resize(rows == 0 ? 0 : ids.size() * vocabulary());
            self().add_tokens(part, ids, cache, logits_);
            for (std::int64_t row = 0; row < rows; ++row) {
                const auto i = static_cast<std::size_t>(start + row);
                const auto logits =
                    std::span(logits_).subspan(static_cast<std::size_t>(row) * vocabulary(), vocabulary());
                result[i] = detail::cross_entropy(logits, next[i]);
            }
            progress(start + part.tokens);
        });
        return result;
    }
    template <class Cache>
    std::vector<double> losses(std::span<const std::int32_t> token_ids, std::span<const std::int32_t> next,
                               Cache& cache, int sequence, std::int64_t chunk = 512) {
        return losses(token_ids, next, cache, sequence, chunk, [](std::int64_t /*tokens*/) {});
    }

    /// Adds one token and returns the likeliest next one.
    template <class Cache>
    std::int32_t decode(std::int32_t token_id, Cache& cache, int sequence) {
        return prefill({&token_id, 1}, cache, sequence, 1);
    }

    /// Returns the `count` tokens that greedy decoding puts after a prompt; the cache does not hold the last of them.
    /// An exception leaves the tokens of the sequence as they were. Throws ropewalk::error before reading the prompt
    /// for an id outside the vocabulary or a cache without room for all tokens, and later as prefill() does.
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

    /// Checks tokens and chunk, and calls add(segment, ids, first) for every chunk. `first` is the index of its first
    /// id.
    template <class Cache, class Add>
    void add_in_chunks(std::span<const std::int32_t> token_ids, Cache& cache, int sequence, std::int64_t chunk,
                       const Add& add) {
        RW_EXPECTS(!token_ids.empty() && chunk > 0,
                   "prompt must not be empty and chunk must be positive, got {} tokens and a chunk of {}",
                   token_ids.size(), chunk);
        const std::int64_t count = std::ssize(token_ids);
        detail::check_ids(self().config(), token_ids);
        const std::int64_t whole = cache.tokens(sequence) + count;
        all_or_nothing(cache, sequence, whole, [&] {
            for (std::int64_t start = 0; start < count; start += chunk) {
                const std::int64_t tokens = std::min(chunk, count - start);
                add(segment{sequence, tokens, whole},
                    token_ids.subspan(static_cast<std::size_t>(start), static_cast<std::size_t>(tokens)), start);
            }
        });
    }

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
    [[nodiscard]] std::size_t vocabulary() { return static_cast<std::size_t>(self().config().vocabulary); }

    std::vector<float> logits_;
};

}  // namespace ropewalk::llama
