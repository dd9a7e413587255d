// One scheme for all layers that a model's code reads as one a layer type (Transformers 5.23).
#pragma once

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "ropewalk/io/model_defaults.hpp"

namespace ropewalk::detail {

/// A text of an object, or nothing: what has another type is left for the reader to refuse.
inline std::string text_or_nothing(const nlohmann::json& object, const char* key) {
    const auto found = object.find(key);
    return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

inline bool has_sections(const nlohmann::json& scheme) {
    for (const auto& one : scheme) {
        if (one.is_object()) return true;
    }
    return false;
}

/// OLMo-3 and Step-3.5 scale their layers with full attention and leave the sliding ones plain.
inline nlohmann::json scaled_in_full_attention(const nlohmann::json& scheme) {
    nlohmann::json plain{{"rope_type", "default"}};
    if (scheme.contains("rope_theta")) plain["rope_theta"] = scheme["rope_theta"];
    return {{"full_attention", scheme}, {"sliding_attention", plain}};
}

/// DeepSeek-V4 scales the layers that compress, which have a base of their own, and leaves YaRN's magnitude out.
inline nlohmann::json scaled_where_compressed(const nlohmann::json& model, nlohmann::json scheme, bool is_yarn) {
    const auto base = model.find("compress_rope_theta");
    scheme["rope_theta"] = base != model.end() && !base->is_null() ? *base : nlohmann::json(160000.0);
    if (is_yarn && !scheme.contains("attention_factor")) scheme["attention_factor"] = 1.0;
    return {{"main", {{"rope_type", "default"}}}, {"compress", scheme}};
}

/// Whether a model has sliding layers, or is asked for them. OLMo-3 has some where it does not say.
inline bool has_sliding_layers(const nlohmann::json& model, std::string_view model_type,
                               const std::string& layer_type) {
    if (layer_type == "sliding_attention") return true;
    const auto types = model.find("layer_types");
    if (types == model.end() || !types->is_array()) return model_type == "olmo3";
    return std::find(types->begin(), types->end(), "sliding_attention") != types->end();
}

/// The model with such a scheme written out by layer type, so that one is asked for.
inline nlohmann::json with_schemes_by_layer_type(nlohmann::json model, const std::string& layer_type) {
    constexpr std::array<std::string_view, 3> scaled_in_full{"olmo3", "step3p5", "step3p7"};
    const std::string model_type = text_or_nothing(model, "model_type");
    for (const char* const key : {"rope_parameters", "rope_scaling"}) {
        const auto found = model.find(key);
        if (found == model.end() || !found->is_object() || found->empty() || has_sections(*found)) continue;
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
