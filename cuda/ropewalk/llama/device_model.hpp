// A whole decoder on a device: embedding, layers, head, and greedy generation.
#pragma once

#include "ropewalk/llama/device_stack.hpp"
#include "ropewalk/llama/greedy.hpp"

namespace ropewalk::llama {

/// Layers between token ids and logits, with prefill(), decode() and generate() of greedy.
template <Machine M>
class device_model : public greedy<device_model<M>> {
public:
    /// Throws ropewalk::error as device_stack does, and where the model has no vocabulary.
    device_model(M& machine, const model_config& config, const model_weights& weights, rope_schedule rope,
                 const device_options& chosen = {})
        : layers_(machine, config, weights, std::move(rope), chosen) {
        RW_EXPECTS(config.vocabulary > 0, "a model without a vocabulary takes hidden states: use device_stack");
    }

    [[nodiscard]] device_stack<M>& layers() { return layers_; }
    [[nodiscard]] const model_config& config() const { return layers_.config(); }

private:
    friend greedy<device_model>;

    void add_tokens(const segment& one, std::span<const std::int32_t> token_ids, device_cache<M>& cache,
                    std::span<float> scores = {}) {
        layers_.predict({&one, 1}, token_ids, scores, cache);
    }

    device_stack<M> layers_;
};

}  // namespace ropewalk::llama
