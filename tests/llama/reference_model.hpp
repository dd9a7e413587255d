/// @file  A decoder in float64, with weights of any type.
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "llama/reference.hpp"

namespace test {

/// One sequence through a decoder.
class reference_model {
public:
    reference_model(const ropewalk::llama::model_config& config, const ropewalk::llama::model_weights& weights)
        : config_(config), weights_(widened(config, weights)), layers_(config, weights_) {}
    reference_model(const reference_model&) = delete;
    reference_model& operator=(const reference_model&) = delete;

    /// Forgets all tokens.
    void restart() { layers_ = reference_stack(config_, weights_); }

    /// Adds tokens and returns their hidden states.
    numbers forward(const std::vector<std::int32_t>& ids, const reference_policy& exact_policy) {
        std::vector<float> hidden;
        const auto* const rows = static_cast<const float*>(weights_.embedding.data);
        for (const std::int32_t id : ids)
            hidden.insert(hidden.end(), rows + id * config_.hidden_size, rows + (id + 1) * config_.hidden_size);
        return layers_.forward(hidden, exact_policy);
    }
    /// Returns the logits that follow the last of some hidden states.
    [[nodiscard]] numbers logits(const numbers& states) const {
        const numbers last(states.end() - config_.hidden_size, states.end());
        const double squares = std::inner_product(last.begin(), last.end(), last.begin(), 0.0);
        const double size = std::sqrt(squares / static_cast<double>(config_.hidden_size) + config_.rms_norm_eps);
        const auto* const head = static_cast<const float*>(weights_.head.data);
        const auto* const norm = static_cast<const float*>(weights_.final_norm.data);
        numbers result(static_cast<std::size_t>(config_.vocabulary));
        for (std::size_t i = 0; i < result.size(); ++i)
            for (std::size_t c = 0; c < last.size(); ++c)
                result[i] +=
                    last[c] / size * static_cast<double>(norm[c]) * static_cast<double>(head[i * last.size() + c]);
        return result;
    }

private:
    static ropewalk::llama::model_weights widened(const ropewalk::llama::model_config& config,
                                                  ropewalk::llama::model_weights weights) {
        ropewalk::llama::for_each_weight(
            config, weights, [&](ropewalk::llama::matrix& w, const std::string&, auto, auto) {
                auto numbers = std::make_shared<std::vector<float>>(static_cast<std::size_t>(w.rows * w.columns));
                ropewalk::llama::with_element(w.type, [&]<class T>(T) {
                    const auto* const from = static_cast<const T*>(w.data);
                    for (std::size_t i = 0; i < numbers->size(); ++i) (*numbers)[i] = static_cast<float>(from[i]);
                });
                w.data = numbers->data(), w.type = ropewalk::element_type::f32;
                weights.owners.push_back(std::move(numbers));
            });
        return weights;
    }

    ropewalk::llama::model_config config_;
    ropewalk::llama::model_weights weights_;
    reference_stack layers_;
};

}  // namespace test
