// Rejection of configurations whose model code rotates differently or not at all.
#pragma once

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include "ropewalk/io/config_section.hpp"
#include "ropewalk/io/model_code.hpp"
#include "ropewalk/io/position_keys.hpp"

namespace ropewalk::detail {

/// Returns whether the kind of position embedding names a rotation, in the spelling of Granite ("rope") or ESM
/// ("rotary"). Descendants of BERT such as ModernBERT inherit "absolute" without using it; ESM uses it.
inline bool names_rotation(const config_section& model, std::string_view model_type, const std::string& kind) {
    constexpr std::array<std::string_view, 2> words{"rope", "rotary"};
    if (contains_any(kind, words)) return true;
    return kind == "absolute" && model_type != "esm" &&
           (model_type.starts_with("modernbert") ||
            model.has_any({"rope_theta", "rope_parameters", "rope_scaling", "global_rope_theta", "rotary_emb_base"}));
}

/// Rejects a section whose keys say that the model does not rotate.
inline void reject_other_positions(const config_section& part) {
    constexpr const char* text = "{}: {} is {}: the model has no rotary positions, or not in all layers";
    for (const char* const key : {"alibi", "use_alibi", "mla_use_nope", "use_nope"}) {
        RW_EXPECTS(!part.flag(key).value_or(false), text, part.path(), key, "true");
    }
    for (const char* const key : {"rope", "use_rope", "use_rotary", "use_rotary_embeddings", "rotary",
                                  "use_rotary_position_embeddings", "use_rotary_embedding", "apply_rotary"}) {
        if (part.has(key) && part.json()[key].is_boolean()) {
            RW_EXPECTS(part.flag(key).value_or(true), text, part.path(), key, "false");
        }
    }
}

/// Rejects models without rotation, and those that no encoding can express.
inline void reject_models_by_type(const config_section& model, const model_code& code, const config_section& defaults) {
    const std::string& model_type = code.model_type;
    // MPT rotates in its authors' code only, and only on request.
    const auto attention = model.section("attn_config");
    const bool on_request = model_type == "mpt" && attention && attention->flag("rope").value_or(false);
    RW_EXPECTS(code.rotates() || on_request, "{}: model_type '{}' {}", model.path(), model_type, code.entry->note);
    RW_EXPECTS(
        model_type != "zamba2" || model.flag("use_mem_rope").value_or(defaults.flag("use_mem_rope").value_or(false)),
        "{}: model_type 'zamba2' has no rotary positions unless use_mem_rope is true", model.path());
    RW_EXPECTS(model_type != "baichuan" || model.integer("hidden_size").value_or(4096) == 4096,
               "{}: model_type 'baichuan' has ALiBi instead of rotary positions unless hidden_size is 4096, got {}",
               model.path(), model.integer("hidden_size").value_or(4096));
    RW_EXPECTS(!model.flag("position_encoding_2d").value_or(false),
               "{}: position_encoding_2d is true: the two positions per token of the first ChatGLM are not supported",
               model.path());
}

/// Rejects models by type, and keys outside the rope section that change the rotation or switch it off. `keeps_scaling`
/// is false if the caller replaces the scaling of the configuration.
inline void reject_unsupported_model(const config_section& model, const model_code& code,
                                     const config_section& defaults, bool keeps_scaling) {
    reject_models_by_type(model, code, defaults);
    const bool dynamic = model.flag("use_dynamic_ntk").value_or(false);
    RW_EXPECTS(!keeps_scaling || !dynamic,
               "{}: use_dynamic_ntk is true, a scaling of Qwen's own code: pass a policy instead", model.path());
    RW_EXPECTS(!model.has("dual_chunk_attention_config"),
               "{}: dual_chunk_attention_config gives tokens positions within chunks, which is not supported: remove "
               "it for the encoding of sequences within one chunk",
               model.path());
    // Step-3.5 lists the layer types that it scales; layer_types.hpp scales those with full attention.
    if (code.model_type.starts_with("step3p") && model.is_list("yarn_only_types")) {
        RW_EXPECTS(model.json()["yarn_only_types"] == nlohmann::json::array({"full_attention"}),
                   "{}: yarn_only_types must be [\"full_attention\"]", model.path());
    }
    reject_other_positions(model);
    if (const auto attention = model.section("attn_config")) reject_other_positions(*attention);
    for (const char* const key : {"position_embedding_type", "position_embeddings_type", "position_embedding"}) {
        const std::string kind = model.text(key).value_or(defaults.text(key).value_or("rope"));
        RW_EXPECTS(names_rotation(model, code.model_type, kind),
                   "{}: {} is '{}', expected 'rope' or 'rotary': the model has no rotary positions", model.path(), key,
                   shown_name(kind));
    }
}

/// Returns whether the leading dense layers of Cohere's mixture rotate: they have full attention, and rotate unless a
/// pattern makes some of them sliding.
inline bool has_rotating_dense_layers(const config_section& model) {
    const bool dense =
        model.lists("mlp_layer_types", "dense") || model.integer("first_k_dense_replace").value_or(0) > 0;
    return dense && model.integer("prefix_dense_sliding_window_pattern").value_or(1) == 1;
}

/// Returns whether the model's code leaves a layer type without rotation.
inline bool is_unrotated(const config_section& model, const model_code& code, const config_section& defaults,
                         const std::string& layer_type) {
    if (!defaults.has("unrotated_layers") || !defaults.lists("unrotated_layers", layer_type)) return false;
    if (code.model_type == "cohere2_moe" && layer_type == "full_attention") return !has_rotating_dense_layers(model);
    const bool slides = model.has("sliding_window") || model.lists("layer_types", "sliding_attention");
    return slides || !defaults.flag("rotates_without_sliding_window").value_or(false);
}

/// Rejects a layer type without any rotating layer.
inline void reject_layers_without_rotation(const config_section& model, const model_code& code,
                                           const config_section& defaults, const std::string& layer_type) {
    bool rotates = !is_unrotated(model, code, defaults, layer_type);
    // Both keys have one number per layer, which is 0 for layers without rotation.
    for (const char* const key : {"no_rope_layers", "layer_rope_theta"}) {
        const auto values = model.numbers_of_layers(key, layer_type);
        rotates =
            rotates && (values.empty() || std::any_of(values.begin(), values.end(), [](double v) { return v != 0; }));
    }
    RW_EXPECTS(rotates, "{}: the layers of type '{}' of {} have no rotary positions", model.path(),
               shown_name(layer_type), code.model_type.empty() ? "this model" : code.model_type);
}

}  // namespace ropewalk::detail
