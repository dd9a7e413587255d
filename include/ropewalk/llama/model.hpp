// A decoder on the CPU: embedding, layers, head, greedy generation and losses.
#pragma once

#include <span>
#include <vector>

#include "ropewalk/llama/greedy.hpp"
#include "ropewalk/llama/stack.hpp"

namespace ropewalk::llama {

/// A stack between token ids and logits, with prefill(), decode(), generate() and losses() of greedy.
class model : public greedy<model> {
public:
    /// Throws ropewalk::error as stack does, and for a model without a vocabulary.
    model(const model_config& config, model_weights weights, rope_schedule rope, const cpu::kernel_table& kernels,
          int threads = 0)
        : layers_(config, std::move(weights), std::move(rope), kernels, threads) {
        RW_EXPECTS(config.vocabulary > 0, "a model without a vocabulary takes hidden states: use stack");
    }

    [[nodiscard]] stack& layers() { return layers_; }
    [[nodiscard]] const model_config& config() const { return layers_.config(); }

    /// Writes rows of the embedding to hidden [ids, hidden_size]. Throws for an id outside the vocabulary.
    void embed(std::span<const std::int32_t> token_ids, std::span<float> hidden) const {
        RW_EXPECTS(hidden.size() == token_ids.size() * width(), "hidden has {} numbers, {} tokens of {} need {}",
                   hidden.size(), token_ids.size(), width(), token_ids.size() * width());
        detail::check_ids(config(), token_ids);
        const matrix& table = layers_.weights().embedding;
        with_element(table.type, [&]<class T>(T /*type*/) {
            float* to = hidden.data();
            for (const std::int32_t id : token_ids) {
                const T* const row = static_cast<const T*>(table.data) + id * table.columns;
                for (std::int64_t i = 0; i < table.columns; ++i) *to++ = static_cast<float>(row[i]);
            }
        });
    }

    /// Normalises hidden states as the head sees them, [tokens, hidden_size]. In place if the spans are equal. Returns
    /// the first token whose squares in float32 have no finite sum, or −1.
    std::int64_t final_norm(std::span<const float> hidden, std::span<float> normed) const {
        RW_EXPECTS(hidden.size() == normed.size() && hidden.size() % width() == 0,
                   "{} numbers cannot be normalised into {}, in rows of {}", hidden.size(), normed.size(), width());
        return layers_.kernels().rms_norm(hidden.data(), static_cast<std::int64_t>(hidden.size() / width()),
                                          config().hidden_size,
                                          static_cast<const float*>(layers_.weights().final_norm.data),
                                          static_cast<float>(config().rms_norm_eps), normed.data(), layers_.threads());
    }

    /// Computes logits [tokens, vocabulary] of hidden states [tokens, hidden_size] that stack::forward() wrote. Returns
    /// as final_norm() does.
    std::int64_t logits(std::span<const float> hidden, std::span<float> out) const {
        const std::size_t tokens = hidden.size() / width();
        RW_EXPECTS(hidden.size() % width() == 0 && out.size() == tokens * static_cast<std::size_t>(config().vocabulary),
                   "logits of {} numbers in rows of {} need {} numbers, got {}", hidden.size(), width(),
                   tokens * static_cast<std::size_t>(config().vocabulary), out.size());
        std::vector<float> normed(hidden.size());
        const std::int64_t wrong = final_norm(hidden, normed);
        const cpu::product head{layers_.weights().head, out.data()};
        layers_.kernels().linear(normed.data(), static_cast<std::int64_t>(tokens), {&head, 1}, false,
                                 layers_.threads());
        return wrong;
    }

private:
    friend greedy<model>;

    void add_tokens(const segment& tokens, std::span<const std::int32_t> token_ids, kv_cache& cache,
                    std::span<float> scores) {
        hidden_.resize(token_ids.size() * width());
        embed(token_ids, hidden_);
        layers_.forward({&tokens, 1}, hidden_, cache);
        const std::size_t rows = scores.size() / static_cast<std::size_t>(config().vocabulary);
        if (rows == 0) return;
        const std::int64_t wrong = logits(std::span<const float>(hidden_).last(rows * width()), scores);
        const std::int64_t first = cache.tokens(tokens.sequence) - static_cast<std::int64_t>(rows);
        if (wrong >= 0) detail::fail_not_finite(first + wrong, "after", config().layers - 1);
        detail::check_logits(scores, config().vocabulary, first);
    }

    [[nodiscard]] std::size_t width() const { return static_cast<std::size_t>(config().hidden_size); }

    stack layers_;
    std::vector<float> hidden_;
};

}  // namespace ropewalk::llama
