// Scaling by layer type for models whose configuration has one section for all layers.
#pragma once

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "ropewalk/io/model_code.hpp"

namespace ropewalk::detail {

/// Returns whether a section has one part per layer type.
inline bool has_parts(const nlohmann::json& section) {
    return std::any_of(section.begin(), section.end(), [](const nlohmann::json& part) { return part.is_object(); });
}

/// OLMo-3 and Step-3.5 scale only the layers with full attention.
inline nlohmann::json scaled_in_full_attention(const nlohmann::json& section) {
    nlohmann::json plain{{"rope_type", "default"}};
    if (section.contains("rope_theta")) plain["rope_theta"] = section["rope_theta"];
    return {{"full_attention", section}, {"sliding_attention", plain}};
}

/// DeepSeek-V4 scales only the compressed layers, which have their own base, and omits YaRN's attention factor.
inline nlohmann::json scaled_where_compressed(const nlohmann::json& model, nlohmann::json section, bool is_yarn) {
    const auto base = model.find("compress_rope_theta");
    section["rope_theta"] = base != model.end() && !base->is_null() ? *base : nlohmann::json(160000.0);
    if (is_yarn && !section.contains("attention_factor")) section["attention_factor"] = 1.0;
    return {{"main", {{"rope_type", "default"}}}, {"compress", section}};
}

/// Returns whether a model has sliding layers, or one is requested. OLMo-3 has some by default.
inline bool has_sliding_layers(const nlohmann::json& model, std::string_view model_type,
                               const std::string& layer_type) {
    if (layer_type == "sliding_attention") return true;
    const auto types = model.find("layer_types");
    if (types == model.end() || !types->is_array()) return model_type == "olmo3";
    return std::find(types->begin(), types->end(), "sliding_attention") != types->end();
}

/// Returns the model with its sections split by layer type where its code scales some layer types only. The caller must
/// then name a layer type.
inline nlohmann::json split_by_layer_type(nlohmann::json model, std::string_view model_type,
                                          const std::string& layer_type) {
    constexpr std::array<std::string_view, 3> scaled_in_full{"olmo3", "step3p5", "step3p7"};
    if (model_type == "deepseek_v4" && !model.contains("rope_parameters") && !model.contains("rope_scaling"))
        model["rope_parameters"] = {{"rope_type", "default"}};
    for (const char* const key : {"rope_parameters", "rope_scaling"}) {
        const auto found = model.find(key);
        if (found == model.end() || !found->is_object() || found->empty() || has_parts(*found)) continue;
        const std::string now = text_or_nothing(*found, "rope_type"), old = text_or_nothing(*found, "type");
        const std::string type = now.empty() ? old : now;
        if (model_type == "deepseek_v4") {
            *found = scaled_where_compressed(model, *found, type == "yarn");
        } else if (contains(scaled_in_full, model_type) && !type.empty() && type != "default" &&
                   has_sliding_layers(model, model_type, layer_type)) {
            *found = scaled_in_full_attention(*found);
        }
    }
    return model;
}

}  // namespace ropewalk::detail
