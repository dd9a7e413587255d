// Rejection of configurations whose model code rotates differently or not at all (Transformers 5.23).
#pragma once

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include "ropewalk/io/config_section.hpp"
#include "ropewalk/io/model_defaults.hpp"

namespace ropewalk::detail {

/// Models with learned, sinusoidal or relative positions, with a bias on the scores, or without positions.
inline constexpr std::array<std::string_view, 46> models_without_rotation{"albert",
                                                                          "bart",
                                                                          "bert",
                                                                          "big_bird",
                                                                          "biogpt",
                                                                          "bloom",
                                                                          "camembert",
                                                                          "clip",
                                                                          "clip_text_model",
                                                                          "clip_vision_model",
                                                                          "ctrl",
                                                                          "deberta",
                                                                          "deberta-v2",
                                                                          "distilbert",
                                                                          "electra",
                                                                          "falcon_mamba",
                                                                          "fnet",
                                                                          "gpt2",
                                                                          "gpt_bigcode",
                                                                          "gpt_neo",
                                                                          "jamba",
                                                                          "kimi_linear",
                                                                          "layoutlm",
                                                                          "led",
                                                                          "longformer",
                                                                          "mamba",
                                                                          "mamba2",
                                                                          "marian",
                                                                          "mbart",
                                                                          "mpnet",
                                                                          "mpt",
                                                                          "mt5",
                                                                          "opt",
                                                                          "pegasus",
                                                                          "roberta",
                                                                          "rwkv",
                                                                          "t5",
                                                                          "umt5",
                                                                          "vit",
                                                                          "wav2vec2",
                                                                          "whisper",
                                                                          "xglm",
                                                                          "xlm-roberta",
                                                                          "xlm-roberta-xl",
                                                                          "xlnet",
                                                                          "zamba"};

/// Models that rotate in all layers except those with full attention.
inline constexpr std::array<std::string_view, 3> models_without_rotation_in_full_attention{"afmoe", "cohere2",
                                                                                           "llama4_text"};

/// The same if the model has sliding layers.
inline constexpr std::array<std::string_view, 4> models_with_rotation_in_sliding_layers_only{"exaone4", "exaone_moe",
                                                                                             "flint", "kolibri1"};

/// Returns whether position_embedding_type names a rotation, in the spelling of Granite ("rope") or ESM ("rotary").
/// Descendants of BERT such as ModernBERT inherit "absolute" without using it; ESM uses it.
inline bool names_rotation(const config_section& model, std::string_view model_type, std::string_view kind) {
    for (const std::string_view known : {"rope", "RoPE", "rotary"}) {
        if (kind.starts_with(known)) return true;
    }
    if (kind != "absolute" || model_type == "esm") return false;
    const auto stated = {"rope_theta", "rope_parameters", "rope_scaling", "global_rope_theta", "rotary_emb_base"};
    return model_type.starts_with("modernbert") ||
           std::any_of(stated.begin(), stated.end(), [&](const char* key) { return model.has(key); });
}

/// Rejects models without rotation, and those that no encoding can express.
inline void reject_models_by_type(const config_section& model, std::string_view model_type) {
    RW_EXPECTS(!contains(models_without_rotation, model_type), "{}: model_type '{}' has no rotary positions",
               model.path(), model_type);
    RW_EXPECTS(model_type != "zamba2" || model.flag("use_mem_rope").value_or(false),
               "{}: model_type 'zamba2' has no rotary positions unless use_mem_rope is true", model.path());
    RW_EXPECTS(
        model_type != "nanochat",
        "{}: model_type 'nanochat' rotates backwards: make an encoding from head_dim and rope_theta, and rotate with "
        "inverse=True",
        model.path());
    RW_EXPECTS(!model.flag("position_encoding_2d").value_or(false),
               "{}: position_encoding_2d is true: the two positions per token of the first ChatGLM are not supported",
               model.path());
}

/// Rejects models by type, and keys outside the rope section that change the rotation or switch it off. `keeps_scaling`
/// is false if the caller replaces the scaling of the configuration.
inline void reject_unsupported_model(const config_section& model, std::string_view model_type, bool keeps_scaling) {
    reject_models_by_type(model, model_type);
    const double ratio = model.number("rope_ratio").value_or(1);
    RW_EXPECTS(ratio == 1, "{}: rope_ratio must be 1, got {}: set rope_theta to ChatGLM's base and drop rope_ratio",
               model.path(), ratio);
    RW_EXPECTS(!keeps_scaling || !model.flag("use_dynamic_ntk").value_or(false),
               "{}: use_dynamic_ntk is true, a scaling of Qwen's own code: pass a policy instead", model.path());
    const auto attention = model.section("attn_config");
    for (const config_section& part : {model, attention.value_or(model)}) {
        RW_EXPECTS(!part.flag("alibi").value_or(false), "{}: alibi is true: the model has no rotary positions",
                   part.path());
    }
    const std::string kind = model.text("position_embedding_type").value_or("rope");
    RW_EXPECTS(names_rotation(model, model_type, kind),
               "{}: position_embedding_type is '{}', expected 'rope' or 'rotary': the model has no rotary positions",
               model.path(), shown_name(kind));
}

/// Returns whether the leading dense layers of Cohere's mixture rotate: they have full attention, and rotate unless a
/// pattern makes some of them sliding.
inline bool has_rotating_dense_layers(const config_section& model) {
    const bool dense =
        model.lists("mlp_layer_types", "dense") || model.integer("first_k_dense_replace").value_or(0) > 0;
    return dense && model.integer("prefix_dense_sliding_window_pattern").value_or(1) == 1;
}

/// Rejects a layer type without any rotating layer.
inline void reject_layers_without_rotation(const config_section& model, std::string_view model_type,
                                           const std::string& layer_type) {
    bool rotates = true;
    if (layer_type == "full_attention") {
        const bool slides = model.has("sliding_window") || model.lists("layer_types", "sliding_attention");
        rotates = !contains(models_without_rotation_in_full_attention, model_type) &&
                  (model_type != "cohere2_moe" || has_rotating_dense_layers(model)) &&
                  !(slides && contains(models_with_rotation_in_sliding_layers_only, model_type));
    }
    // Both keys have one number per layer, which is 0 for layers without rotation.
    for (const char* const key : {"no_rope_layers", "layer_rope_theta"}) {
        const auto values = layer_type.empty() ? std::vector<double>{} : model.numbers_of_layers(key, layer_type);
        rotates =
            rotates && (values.empty() || std::any_of(values.begin(), values.end(), [](double v) { return v != 0; }));
    }
    RW_EXPECTS(rotates, "{}: the layers of type '{}' of {} have no rotary positions", model.path(),
               shown_name(layer_type), model_type.empty() ? "this model" : model_type);
}

}  // namespace ropewalk::detail
