// Decoder on a device: embedding, layers, head, greedy generation and losses.
#pragma once

#include "ropewalk/llama/device_stack.hpp"
#include "ropewalk/llama/greedy.hpp"

namespace ropewalk::llama {

/// Layers between token ids and logits, with prefill(), decode(), generate() and losses() of greedy.
template <DeviceBackend B>
class device_model : public greedy<device_model<B>> {
public:
    /// Throws ropewalk::error as device_stack does, and if the model has no vocabulary.
    device_model(B& backend, const model_config& config, const model_weights& weights, rope_schedule rope,
                 const device_options& options = {})
        : layers_(backend, config, weights, std::move(rope), options) {
        RW_EXPECTS(config.vocabulary > 0, "a model without a vocabulary takes hidden states: use device_stack");
    }

    [[nodiscard]] device_stack<B>& layers() { return layers_; }
    [[nodiscard]] const model_config& config() const { return layers_.config(); }

private:
    friend greedy<device_model>;

    void add_tokens(const segment& part, std::span<const std::int32_t> token_ids, device_cache<B>& cache,
                    std::span<float> scores = {}) {
        layers_.predict({&part, 1}, token_ids, scores, cache);
    }

    device_stack<B> layers_;
};

}  // namespace ropewalk::llama
