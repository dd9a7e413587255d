// Weights of a Llama: views of memory that a checkpoint, a generator or a device owns.
#pragma once

#include <cstdint>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "ropewalk/core/element.hpp"
#include "ropewalk/llama/config.hpp"

namespace ropewalk::llama {

/// Non-owning contiguous [rows, columns] = [outputs, inputs], as Hugging Face stores a Linear. The weight of a norm is
/// one row. Elements need no alignment beyond their own.
struct matrix {
    const void* data = nullptr;
    element_type type = element_type::f32;
    std::int64_t rows = 0, columns = 0;

    [[nodiscard]] constexpr bool exists() const { return data != nullptr; }
    [[nodiscard]] constexpr std::int64_t bytes() const {
        return rows * columns * static_cast<std::int64_t>(size_of(type));
    }
};

/// Calls f(float{}), f(f16{}) or f(bf16{}).
template <class F>
RW_INLINE void with_element(element_type type, const F& f) {
    switch (type) {
        case element_type::f32:
            return f(float{});
        case element_type::f16:
            return f(f16{});
        default:
            return f(bf16{});
    }
}

/// One decoder layer. Without an MLP, mlp_norm, gate, up and down are absent.
struct layer_weights {
    matrix attention_norm, q, k, v, o;
    matrix mlp_norm, gate, up, down;
};

/// All weights of a model, in the memory of the CPU or of a device. Without a vocabulary there are only layers.
struct model_weights {
    std::vector<layer_weights> layers;
    matrix embedding, final_norm, head;
    std::vector<std::shared_ptr<const void>> owners;  ///< of the memory that the matrices view

    /// Bytes of all matrices, norms excluded. A tied head counts once.
    [[nodiscard]] std::int64_t bytes() const {
        std::int64_t sum = embedding.bytes() + (head.data == embedding.data ? 0 : head.bytes());
        for (const layer_weights& l : layers) {
            for (const matrix* const w : {&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down}) sum += w->bytes();
        }
        return sum;
    }
};

/// Gives `w` uninitialised memory of its shape, owned by `weights`. The threads that fill it touch its pages first.
inline std::byte* allocate(matrix& w, model_weights& weights) {
    constexpr std::align_val_t line{64};
    auto* const bytes = static_cast<std::byte*>(::operator new[](static_cast<std::size_t>(w.bytes()), line));
    weights.owners.emplace_back(bytes,
                                [](const std::byte* own) { ::operator delete[](const_cast<std::byte*>(own), line); });
    w.data = bytes;
    return bytes;
}

/// Calls visit(matrix, name, rows, columns) for every weight of a model of this shape, with Hugging Face's names.
template <class Weights, class Visit>
void for_each_weight(const model_config& config, Weights& weights, const Visit& visit) {
    const std::int64_t hidden = config.hidden_size, inner = config.intermediate_size;
    for (std::size_t i = 0; i < weights.layers.size(); ++i) {
        auto& layer = weights.layers[i];
        const std::string prefix = "model.layers." + std::to_string(i) + ".";
        visit(layer.attention_norm, prefix + "input_layernorm", 1, hidden);
        visit(layer.q, prefix + "self_attn.q_proj", config.q_width(), hidden);
        visit(layer.k, prefix + "self_attn.k_proj", config.kv_width(), hidden);
        visit(layer.v, prefix + "self_attn.v_proj", config.kv_width(), hidden);
        visit(layer.o, prefix + "self_attn.o_proj", hidden, config.q_width());
        if (inner == 0) continue;
        visit(layer.mlp_norm, prefix + "post_attention_layernorm", 1, hidden);
        visit(layer.gate, prefix + "mlp.gate_proj", inner, hidden);
        visit(layer.up, prefix + "mlp.up_proj", inner, hidden);
        visit(layer.down, prefix + "mlp.down_proj", hidden, inner);
    }
    if (config.vocabulary == 0) return;
    visit(weights.embedding, "model.embed_tokens", config.vocabulary, hidden);
    visit(weights.final_norm, "model.norm", 1, hidden);
    visit(weights.head, "lm_head", config.vocabulary, hidden);
}

/// True for the names that for_each_weight() gives to norms.
constexpr bool is_norm(std::string_view name) { return name.ends_with("norm"); }

/// Throws ropewalk::error that names the first weight which is missing or whose shape differs from the configuration.
inline void check_weights(const model_config& config, const model_weights& weights) {
    RW_EXPECTS(static_cast<std::int64_t>(weights.layers.size()) == config.layers, "there are {} layers, expected {}",
               weights.layers.size(), config.layers);
    for_each_weight(config, weights,
                    [](const matrix& w, const std::string& name, std::int64_t rows, std::int64_t columns) {
                        RW_EXPECTS(w.exists() && w.rows == rows && w.columns == columns,
                                   "{} is [{}, {}], expected [{}, {}]", name, w.rows, w.columns, rows, columns);
                        RW_EXPECTS(w.type != element_type::f64, "{} is f64, weights must be f32, f16 or bf16", name);
                        RW_EXPECTS(!is_norm(name) || w.type == element_type::f32, "{} is {}, norms must be f32", name,
                                   to_string(w.type));
                    });
}

}  // namespace ropewalk::llama
