// A whole decoder: embedding, layers, head, and greedy generation.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "ropewalk/attention/stack.hpp"

namespace ropewalk::attention {

/// Layers between token ids and logits.
class llama {
public:
    /// Throws ropewalk::error as stack does, and where the model has no vocabulary.
    llama(const llama_config& config, llama_weights weights, rope_schedule rope, const kernel_table& kernels,
          int threads = 0)
        : layers_(config, std::move(weights), std::move(rope), kernels, threads) {
        RW_EXPECTS(config.vocabulary > 0, "a model without a vocabulary takes hidden states: use stack");
    }

    [[nodiscard]] stack& layers() { return layers_; }
    [[nodiscard]] const llama_config& config() const { return layers_.config(); }

    /// Rows of the embedding: hidden [ids, hidden_size]. Throws for an id outside the vocabulary.
    void embed(std::span<const std::int32_t> token_ids, std::span<float> hidden) const {
        const std::int64_t width = config().hidden_size;
        RW_EXPECTS(hidden.size() == token_ids.size() * static_cast<std::size_t>(width),
                   "hidden has {} numbers, {} tokens of {} need {}", hidden.size(), token_ids.size(), width,
                   token_ids.size() * static_cast<std::size_t>(width));
        for (const std::int32_t id : token_ids)
            RW_EXPECTS(id >= 0 && id < config().vocabulary, "token id {} is not among the {} of the vocabulary", id,
                       config().vocabulary);
        float* to = hidden.data();
        for (const std::int32_t id : token_ids) {
            copy_row(layers_.weights().embedding, id, to);
            to += width;
        }
    }

    /// The hidden states that the head sees: normalised, in place where they agree. [tokens, hidden_size]
    void final_norm(std::span<const float> hidden, std::span<float> normed) const {
        RW_EXPECTS(hidden.size() == normed.size() && hidden.size() % width() == 0,
                   "{} numbers cannot be normalised into {}, in rows of {}", hidden.size(), normed.size(), width());
        layers_.kernels().rms_norm(hidden.data(), static_cast<std::int64_t>(hidden.size() / width()),
                                   config().hidden_size, layers_.weights().final_norm.data(),
                                   static_cast<float>(config().rms_norm_eps), normed.data(), layers_.threads());
    }

    /// Logits [tokens, vocabulary] of hidden states [tokens, hidden_size] as forward() leaves them.
    void logits(std::span<const float> hidden, std::span<float> out) const {
        const std::size_t tokens = hidden.size() / width();
        RW_EXPECTS(hidden.size() % width() == 0 && out.size() == tokens * static_cast<std::size_t>(config().vocabulary),
                   "logits of {} numbers in rows of {} need {} numbers, got {}", hidden.size(), width(),
                   tokens * static_cast<std::size_t>(config().vocabulary), out.size());
        std::vector<float> normed(hidden.size());
        final_norm(hidden, normed);
        layers_.kernels().linear(normed.data(), static_cast<std::int64_t>(tokens), layers_.weights().head, out.data(),
                                 false, layers_.threads());
    }

    /// Adds tokens to a sequence in chunks of at most `chunk`, and returns the likeliest next one. Calls
    /// progress(tokens so far) behind every chunk. Memory for activations grows with the chunk alone.
    template <class Progress>
    std::int32_t prefill(std::span<const std::int32_t> token_ids, kv_cache& cache, int sequence, std::int64_t chunk,
                         const Progress& progress) {
        RW_EXPECTS(!token_ids.empty() && chunk > 0, "a prompt needs a token and chunks a size, got {} and {}",
                   token_ids.size(), chunk);
        const std::int64_t whole = cache.tokens(sequence) + static_cast<std::int64_t>(token_ids.size());
        std::vector<float> hidden;
        for (std::size_t start = 0; start < token_ids.size();) {
            const auto part =
                token_ids.subspan(start, std::min(static_cast<std::size_t>(chunk), token_ids.size() - start));
            hidden.resize(part.size() * width());
            embed(part, hidden);
            const segment one{sequence, static_cast<std::int64_t>(part.size()), whole};
            layers_.forward({&one, 1}, hidden, cache);
            start += part.size();
            progress(static_cast<std::int64_t>(start));
        }
        return likeliest(std::span<const float>(hidden).last(width()));
    }
    std::int32_t prefill(std::span<const std::int32_t> token_ids, kv_cache& cache, int sequence,
                         std::int64_t chunk = 512) {
        return prefill(token_ids, cache, sequence, chunk, [](std::int64_t /*tokens*/) {});
    }

    /// Adds one token and returns the likeliest next one.
    std::int32_t decode(std::int32_t token_id, kv_cache& cache, int sequence) {
        return prefill({&token_id, 1}, cache, sequence, 1);
    }

    /// The `count` likeliest tokens behind a prompt, one after the other: greedy decoding.
    std::vector<std::int32_t> generate(std::span<const std::int32_t> prompt, std::int64_t count, kv_cache& cache,
                                       int sequence, std::int64_t chunk = 512) {
        std::vector<std::int32_t> tokens;
        if (count <= 0) return tokens;
        tokens.push_back(prefill(prompt, cache, sequence, chunk));
        while (static_cast<std::int64_t>(tokens.size()) < count)
            tokens.push_back(decode(tokens.back(), cache, sequence));
        return tokens;
    }

private:
    [[nodiscard]] std::size_t width() const { return static_cast<std::size_t>(config().hidden_size); }

    [[nodiscard]] std::int32_t likeliest(std::span<const float> hidden) const {
        std::vector<float> scores(static_cast<std::size_t>(config().vocabulary));
        logits(hidden, scores);
        return static_cast<std::int32_t>(std::max_element(scores.begin(), scores.end()) - scores.begin());
    }

    static void copy_row(const matrix& from, std::int64_t row, float* to) {
        const std::int64_t first = row * from.columns;
        const auto copy = [&](const auto* elements) {
            for (std::int64_t i = 0; i < from.columns; ++i) to[i] = static_cast<float>(elements[first + i]);
        };
        if (from.type == element_type::f32) return copy(static_cast<const float*>(from.data));
        if (from.type == element_type::f16) return copy(static_cast<const f16*>(from.data));
        copy(static_cast<const bf16*>(from.data));
    }

    stack layers_;
};

}  // namespace ropewalk::attention
