// The rotary part of a Hugging Face config.json. Optional: needs nlohmann/json.
#pragma once

#include <array>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "ropewalk/encoding.hpp"
#include "ropewalk/io/config_section.hpp"

namespace ropewalk {

/// What a configuration leaves open.
struct config_choices {
    std::string layer_type{};             ///< "full_attention", "sliding_attention", … where layers differ
    std::int64_t sequence_length = 0;     ///< tokens, for schemes that depend on it; 0: not known
    std::optional<layout_kind> layout{};  ///< in place of the one that the kind of model has
};

namespace detail {

/// How one `rope_type` becomes a policy. `scheme` is rope_scaling or rope_parameters, `model` all of the configuration.
struct rope_scheme {
    std::string_view rope_type;
    any_policy (*read)(const config_section& scheme, const config_section& model);
};

inline constexpr std::array rope_schemes{
    rope_scheme{"default", [](const config_section&, const config_section&) -> any_policy { return Default{}; }},
    rope_scheme{"linear",
                [](const config_section& scheme, const config_section&) -> any_policy {
                    return Linear{.factor = scheme.required_number("factor")};
                }},
};

/// Models of Transformers 5 whose weights pair neighbours; all others are half_split there.
inline constexpr std::array<std::string_view, 13> interleaved_models{
    "codegen", "cohere", "cohere2", "deepseek_v2", "deepseek_v3", "ernie4_5",     "ernie4_5_moe",
    "glm",     "glm4",   "gptj",    "helium",      "llama4_text", "longcat_flash"};

inline layout_kind layout_from_config(const config_section& model) {
    const auto interleaves = model.flag("rope_interleave");
    if (interleaves) return *interleaves ? layout_kind::interleaved : layout_kind::half_split;
    const std::string type = model.text("model_type").value_or("");
    for (const std::string_view one : interleaved_models) {
        if (one == type) return layout_kind::interleaved;
    }
    return layout_kind::half_split;
}

/// `type` is the old name of `rope_type`. A section with a factor but no type is no plain RoPE.
inline std::string rope_type_of(const config_section& scheme) {
    const auto now = scheme.text("rope_type"), old = scheme.text("type");
    RW_EXPECTS(!now || !old || *now == *old, "{}: rope_type is '{}' but type is '{}'", scheme.path(), now.value_or(""),
               old.value_or(""));
    if (now || old) return now ? *now : *old;
    RW_EXPECTS(!scheme.has("factor"), "{} has a factor but lacks 'rope_type'", scheme.path());
    return "default";
}

inline any_policy policy_from_scheme(const config_section& scheme, const config_section& model) {
    const std::string type = rope_type_of(scheme);
    std::string known;
    for (const rope_scheme& one : rope_schemes) {
        if (one.rope_type == type) {
            RW_EXPECTS(!scheme.has("mrope_section"), "{}.mrope_section (three positions a token) is not supported",
                       scheme.path());
            return one.read(scheme, model);
        }
        known += (known.empty() ? "" : ", ") + std::string(one.rope_type);
    }
    fail("{}: rope_type '{}' is not supported, known are {}", scheme.path(), type, known);
}

/// The section of one layer type where `whole` has one a layer type, else itself.
inline config_section of_layer_type(const config_section& whole, const std::string& layer_type) {
    std::string known;
    const config_section* only = nullptr;
    const auto parts = whole.subsections();
    for (const config_section& part : parts) {
        if (part.name() == layer_type) return part;
        known += (known.empty() ? "" : ", ") + part.name();
        only = parts.size() == 1 ? &part : nullptr;
    }
    if (parts.empty()) return whole;
    if (only != nullptr && layer_type.empty()) return *only;
    fail("{} differs by layer type: layer_type must be one of {}, got '{}'", whole.path(), known, layer_type);
}

/// A layer type that nothing in the configuration mentions is a misspelling.
inline void check_layer_type(const config_section& model, const std::string& layer_type) {
    if (layer_type.empty() || layer_type == "full_attention" || layer_type == "sliding_attention") return;
    RW_EXPECTS(model.lists("layer_types", layer_type), "layer_type '{}' is not among the configuration's layer_types",
               layer_type);
}

/// Gemma-3's sliding layers have a base of their own and no scaling; ModernBERT names both bases anew.
inline std::optional<double> local_base(const config_section& model, const std::string& layer_type) {
    if (layer_type != "sliding_attention" || model.has("rope_parameters")) return {};
    return model.first_number({"rope_local_base_freq", "local_rope_theta"});
}

inline std::int64_t head_dim_from_config(const config_section& model) {
    // DeepSeek's rotary part is a tensor of its own.
    if (const auto stated = model.first_integer({"qk_rope_head_dim", "head_dim"})) return *stated;
    const auto hidden = model.first_integer({"hidden_size", "n_embd", "d_model"});
    const auto heads = model.first_integer({"num_attention_heads", "n_head", "n_heads"});
    RW_EXPECTS(hidden && heads, "{} lacks 'head_dim', and 'hidden_size' or 'num_attention_heads' as well",
               model.path());
    RW_EXPECTS(*heads > 0 && *hidden % *heads == 0, "{}: hidden_size {} is no multiple of num_attention_heads {}",
               model.path(), *hidden, *heads);
    return *hidden / *heads;
}

inline std::int64_t rotary_dim_from_config(const config_section& model, const config_section& scheme,
                                           std::int64_t head_dim) {
    if (model.has("qk_rope_head_dim")) return head_dim;
    if (const auto stated = model.first_integer({"rotary_dim"})) return *stated;
    auto part = scheme.number("partial_rotary_factor");
    if (!part) part = model.first_number({"partial_rotary_factor", "rotary_pct"});
    if (!part) return head_dim;
    RW_EXPECTS(*part > 0 && *part <= 1, "{}: partial_rotary_factor must lie in (0, 1], got {}", model.path(), *part);
    return static_cast<std::int64_t>(static_cast<double>(head_dim) * *part);  // truncated as in Transformers
}

/// The policy of a model: `rope_parameters` and `rope_scaling` may both be there and must then agree, and so must
/// `abacus_scale`, by which early Giraffe models call linear scaling.
inline any_policy policy_from_config(const config_section& model, const std::string& layer_type) {
    std::optional<any_policy> chosen;
    const char* chosen_by = "";
    const auto choose = [&](const any_policy& policy, const char* key) {
        const auto text = [](const any_policy& one) {
            return std::visit([](const auto& p) { return describe(p); }, one);
        };
        RW_EXPECTS(!chosen || text(*chosen) == text(policy), "{} says '{}' but {} says '{}'", chosen_by,
                   chosen ? text(*chosen) : "", key, text(policy));
        chosen = policy, chosen_by = key;
    };
    for (const char* const key : {"rope_parameters", "rope_scaling"}) {
        const auto whole = model.section(key);
        if (whole && !whole->empty()) choose(policy_from_scheme(of_layer_type(*whole, layer_type), model), key);
    }
    if (const auto scale = model.number("abacus_scale")) choose(Linear{.factor = *scale}, "abacus_scale");
    return chosen.value_or(Default{});
}

inline config_section parameters_of(const config_section& model, const std::string& layer_type) {
    const auto whole = model.section("rope_parameters");
    return whole ? of_layer_type(*whole, layer_type) : config_section::nothing("rope_parameters");
}

}  // namespace detail

/// The encoding of a model's configuration, a config.json of Hugging Face. Reads `rope_scaling`, the newer
/// `rope_parameters` (a layer type at a time where they are nested), `rope_theta` (10000 by default), `head_dim`,
/// `partial_rotary_factor` and their other names. Throws ropewalk::error, which names the key, for a scheme that is
/// unknown, lacks something or has a value of the wrong type.
inline Encoding encoding_from_config(const nlohmann::json& config, const config_choices& choices = {}) {
    RW_EXPECTS(config.is_object(), "the configuration must be an object, got {}", config.type_name());
    const config_section whole(config, "the configuration");
    const config_section model = whole.section("text_config").value_or(whole);
    detail::check_layer_type(model, choices.layer_type);
    const config_section parameters = detail::parameters_of(model, choices.layer_type);
    const auto local = detail::local_base(model, choices.layer_type);
    auto base = local ? local : parameters.number("rope_theta");
    if (!base) base = model.first_number({"rope_theta", "rotary_emb_base", "global_rope_theta"});

    Geometry geometry;
    geometry.head_dim = detail::head_dim_from_config(model);
    geometry.rotary_dim = detail::rotary_dim_from_config(model, parameters, geometry.head_dim);
    RW_EXPECTS(geometry.rotary_dim > 0, "{}: the rotary part of a head of {} has {} elements", model.path(),
               geometry.head_dim, geometry.rotary_dim);
    geometry.base = base.value_or(geometry.base);
    geometry.layout = choices.layout ? *choices.layout : detail::layout_from_config(model);
    geometry.sequence_length = choices.sequence_length;
    const any_policy policy = local ? any_policy(Default{}) : detail::policy_from_config(model, choices.layer_type);
    return make_encoding(geometry, std::span(&policy, 1));
}

/// JSON text; `source` is what messages call it.
inline nlohmann::json parse_config(const std::string& text, const std::string& source) {
    try {
        return nlohmann::json::parse(text);
    } catch (const nlohmann::json::parse_error& problem) {
        detail::fail("{} is no JSON: {}", source, problem.what());
    }
}

/// The same for a file.
inline Encoding encoding_from_config_file(const std::filesystem::path& path, const config_choices& choices = {}) {
    std::ifstream file(path);
    RW_EXPECTS(file, "cannot read {}", path.string());
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    return encoding_from_config(parse_config(text, path.string()), choices);
}

}  // namespace ropewalk
