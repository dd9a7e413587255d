// The weights of a Llama, in memory that a checkpoint or a generator owns.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ropewalk/llama/config.hpp"
#include "ropewalk/llama/matrix.hpp"

namespace ropewalk::llama {

/// One decoder layer. Hugging Face's names are behind each.
struct layer_weights {
    std::vector<float> attention_norm;  ///< [hidden_size], input_layernorm
    matrix q, k, v, o;                  ///< self_attn.{q,k,v,o}_proj
    std::vector<float> mlp_norm;        ///< [hidden_size], post_attention_layernorm; empty where there is no MLP
    matrix gate, up, down;              ///< mlp.{gate,up,down}_proj
};

struct model_weights {
    std::vector<layer_weights> layers;
    std::vector<float> final_norm;  ///< [hidden_size], model.norm; empty where layers are all there is
    matrix embedding, head;         ///< [vocabulary, hidden_size], model.embed_tokens and lm_head
    /// Whatever the matrices point into.
    std::vector<std::shared_ptr<const void>> owners;

    /// Bytes of all matrices.
    [[nodiscard]] std::int64_t bytes() const {
        std::int64_t sum = embedding.bytes() + (head.data == embedding.data ? 0 : head.bytes());
        for (const layer_weights& layer : layers) {
            for (const matrix* const one :
                 {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down})
                sum += one->bytes();
        }
        return sum;
    }
};

namespace detail {

/// Calls visit(field, name, rows, columns) for every matrix that a layer of this shape has: what reads weights, what
/// makes them up and what checks them agree on shapes and names here.
template <class Layer, class Visit>
void for_each_matrix(const model_config& config, Layer& layer, const Visit& visit) {
    const std::int64_t hidden = config.hidden_size, inner = config.intermediate_size;
    visit(layer.q, "self_attn.q_proj", config.q_width(), hidden);
    visit(layer.k, "self_attn.k_proj", config.kv_width(), hidden);
    visit(layer.v, "self_attn.v_proj", config.kv_width(), hidden);
    visit(layer.o, "self_attn.o_proj", hidden, config.q_width());
    if (inner == 0) return;
    visit(layer.gate, "mlp.gate_proj", inner, hidden);
    visit(layer.up, "mlp.up_proj", inner, hidden);
    visit(layer.down, "mlp.down_proj", hidden, inner);
}

}  // namespace detail

/// Throws ropewalk::error, naming the first weight that is missing or has another shape than the configuration says.
inline void check_weights(const model_config& config, const model_weights& weights) {
    const auto check_norm = [&](const std::vector<float>& norm, std::string_view name, std::size_t layer) {
        RW_EXPECTS(static_cast<std::int64_t>(norm.size()) == config.hidden_size,
                   "layer {}: {} has {} numbers, hidden_size is {}", layer, name, norm.size(), config.hidden_size);
    };
    RW_EXPECTS(static_cast<std::int64_t>(weights.layers.size()) == config.layers, "there are {} layers, expected {}",
               weights.layers.size(), config.layers);
    for (std::size_t layer = 0; layer < weights.layers.size(); ++layer) {
        const layer_weights& one = weights.layers[layer];
        check_norm(one.attention_norm, "input_layernorm", layer);
        if (config.intermediate_size > 0) check_norm(one.mlp_norm, "post_attention_layernorm", layer);
        detail::for_each_matrix(config, one,
                                [&](const matrix& w, const char* name, std::int64_t rows, std::int64_t columns) {
                                    RW_EXPECTS(w.exists() && w.rows == rows && w.columns == columns,
                                               "layer {}: {} is [{}, {}], expected [{}, {}]", layer, name, w.rows,
                                               w.columns, rows, columns);
                                });
    }
    if (config.vocabulary == 0) return;
    for (const matrix* const one : {&weights.embedding, &weights.head}) {
        RW_EXPECTS(one->exists() && one->rows == config.vocabulary && one->columns == config.hidden_size,
                   "{} is [{}, {}], expected [{}, {}]", one == &weights.head ? "lm_head" : "embed_tokens", one->rows,
                   one->columns, config.vocabulary, config.hidden_size);
    }
    RW_EXPECTS(static_cast<std::int64_t>(weights.final_norm.size()) == config.hidden_size,
               "the final norm has {} numbers, hidden_size is {}", weights.final_norm.size(), config.hidden_size);
}

}  // namespace ropewalk::llama
