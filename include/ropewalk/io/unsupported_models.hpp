// Configurations that are refused: read on, they would give plain RoPE without a word (Transformers 5.23).
#pragma once

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include "ropewalk/io/config_section.hpp"
#include "ropewalk/io/model_defaults.hpp"

namespace ropewalk::detail {

/// Models whose code has learned, sinusoidal or relative positions, a bias on the scores, or none at all.
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

/// Models whose layers with full attention do not turn, while their other layers do.
inline constexpr std::array<std::string_view, 3> models_without_rotation_in_full_attention{"afmoe", "cohere2",
                                                                                           "llama4_text"};

/// The same where the model has sliding layers at all.
inline constexpr std::array<std::string_view, 4> models_that_turn_sliding_layers_only{"exaone4", "exaone_moe", "flint",
                                                                                      "kolibri1"};

/// Whether a model says that it turns, by the spellings of Granite ("rope") and ESM ("rotary"). "absolute" is what
/// BERT's descendants inherit and do not read, ModernBERT among them, but ESM reads it.
inline bool names_rotation(const config_section& model, std::string_view model_type, std::string_view kind) {
    for (const std::string_view known : {"rope", "RoPE", "rotary"}) {
        if (kind.starts_with(known)) return true;
    }
    if (kind != "absolute" || model_type == "esm") return false;
    const auto stated = {"rope_theta", "rope_parameters", "rope_scaling", "global_rope_theta", "rotary_emb_base"};
    return model_type.starts_with("modernbert") ||
           std::any_of(stated.begin(), stated.end(), [&](const char* key) { return model.has(key); });
}

/// Refuses kinds of models that do not turn at all, or otherwise than any encoding here.
inline void refuse_other_models(const config_section& model, std::string_view model_type) {
    RW_EXPECTS(!contains(models_without_rotation, model_type), "{}: model_type '{}' has no rotary positions",
               model.path(), model_type);
    RW_EXPECTS(model_type != "zamba2" || model.flag("use_mem_rope").value_or(false),
               "{}: model_type 'zamba2' has no rotary positions unless use_mem_rope is true", model.path());
    RW_EXPECTS(model_type != "nanochat",
               "{}: model_type 'nanochat' turns backwards: make the encoding by hand from head_dim and rope_theta, and "
               "rotate with inverse=True",
               model.path());
    RW_EXPECTS(!model.flag("position_encoding_2d").value_or(false),
               "{}: position_encoding_2d is true: the first ChatGLM's two positions a token are not supported",
               model.path());
}

/// Refuses keys beside the scheme with which a model's own code turns otherwise, or not at all.
inline void refuse_other_codes(const config_section& model, std::string_view model_type, bool keeps_scheme) {
    refuse_other_models(model, model_type);
    const double ratio = model.number("rope_ratio").value_or(1);
    RW_EXPECTS(ratio == 1, "{}: rope_ratio must be 1, got {}: give ChatGLM's base as rope_theta, and no rope_ratio",
               model.path(), ratio);
    RW_EXPECTS(!keeps_scheme || !model.flag("use_dynamic_ntk").value_or(false),
               "{}: use_dynamic_ntk is true, which is Qwen's own scheme: give a policy in place of it", model.path());
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

/// Cohere's mixture has dense layers in front, which have full attention and turn while no pattern lets some slide.
inline bool has_dense_layers_that_turn(const config_section& model) {
    const bool dense =
        model.lists("mlp_layer_types", "dense") || model.integer("first_k_dense_replace").value_or(0) > 0;
    return dense && model.integer("prefix_dense_sliding_window_pattern").value_or(1) == 1;
}

/// Refuses a layer type none of whose layers turn.
inline void refuse_layers_without_rotation(const config_section& model, std::string_view model_type,
                                           const std::string& layer_type) {
    bool turns = true;
    if (layer_type == "full_attention") {
        const bool slides = model.has("sliding_window") || model.lists("layer_types", "sliding_attention");
        turns = !contains(models_without_rotation_in_full_attention, model_type) &&
                (model_type != "cohere2_moe" || has_dense_layers_that_turn(model)) &&
                !(slides && contains(models_that_turn_sliding_layers_only, model_type));
    }
    // 1 where a layer turns, and the base of a layer or 0: both spellings say which layers do not.
    for (const char* const key : {"no_rope_layers", "layer_rope_theta"}) {
        const auto values = layer_type.empty() ? std::vector<double>{} : model.numbers_of_layers(key, layer_type);
        turns = turns && (values.empty() || std::any_of(values.begin(), values.end(), [](double v) { return v != 0; }));
    }
    RW_EXPECTS(turns, "{}: the layers of type '{}' of {} have no rotary positions", model.path(),
               shown_name(layer_type), model_type.empty() ? "this model" : model_type);
}

}  // namespace ropewalk::detail
