// Reader of the rotary part of a Hugging Face config.json. Optional: needs nlohmann/json.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ropewalk/encoding.hpp"
#include "ropewalk/io/layer_types.hpp"
#include "ropewalk/io/parse_config.hpp"
#include "ropewalk/io/rope_types.hpp"
#include "ropewalk/io/unsupported_models.hpp"

namespace ropewalk {

/// Options of encoding_from_config().
struct config_choices {
    std::string layer_type{};             ///< "full_attention", "sliding_attention", … if layers differ
    std::int64_t sequence_length = 0;     ///< tokens, for policies that depend on it; 0: unknown
    std::optional<layout_kind> layout{};  ///< replaces the layout of the model_type
    /// An expression that replaces the scaling of the configuration, for example "yarn:8". Base, widths and
    /// mrope_section stay, and the policies may use the original length of the model.
    std::string policy{};
};

namespace detail {

/// The largest head_dim of a configuration. Every pair costs about a microsecond.
inline constexpr std::int64_t max_head_dim = 16384;

/// A section of one layer type, or of all layers if it has no parts.
struct layer_section {
    config_section section;
    bool nested;
};

/// Returns the part of a layer type, or the whole section if it has no parts.
inline layer_section of_layer_type(const config_section& whole, const std::string& layer_type) {
    const auto parts = whole.subsections();
    if (parts.empty()) return {whole, false};
    std::vector<std::string_view> names;
    std::string known;
    for (const auto& [key, part] : parts) {
        names.push_back(key);
        known += (known.empty() ? "" : ", ") + shown_name(key);
    }
    whole.expect_only(names, "a section with one part per layer type (" + known + ")");
    for (const auto& [key, part] : parts) {
        if (key == layer_type || (parts.size() == 1 && layer_type.empty())) return {part, true};
    }
    fail("{} differs by layer type: layer_type must be one of {}, got '{}'{}", whole.path(), known,
         shown_name(layer_type), suggestion(layer_type, names));
}

/// Throws for a layer type that the configuration does not mention.
inline void check_layer_type(const config_section& model, const std::string& layer_type) {
    constexpr std::array<std::string_view, 2> usual{"full_attention", "sliding_attention"};
    if (layer_type.empty() || contains(usual, layer_type)) return;
    for (const char* const key : {"rope_parameters", "rope_scaling"}) {
        const auto parameters = model.section(key);
        if (parameters && parameters->section(layer_type.c_str())) return;
    }
    RW_EXPECTS(model.lists("layer_types", layer_type), "layer_type '{}' is not among the configuration's layer_types{}",
               shown_name(layer_type), suggestion(layer_type, usual));
}

/// Reads the encoding of one layer type of one model.
class config_reader {
public:
    config_reader(const config_section& model, const config_choices& choices)
        : model_(model), choices_(choices), model_type_(model.text("model_type").value_or("")) {
        reject_unsupported_model(model_, model_type_, choices_.policy.empty());
        check_layer_type(model_, choices_.layer_type);
        reject_layers_without_rotation(model_, model_type_, choices_.layer_type);
        for (const char* const key : {"rope_parameters", "rope_scaling"}) {
            const auto whole = model_.section(key);
            if (whole && !whole->empty()) sections_.push_back(of_layer_type(*whole, choices_.layer_type));
        }
        local_base_ = local_base();
        RW_EXPECTS(!sections_.empty() || !choices_.policy.empty() || !contains(models_with_own_section, model_type_),
                   "{} lacks 'rope_parameters', for which the code of {} has its own default", model_.path(),
                   model_type_);
    }

    [[nodiscard]] Encoding read() const {
        Geometry geometry = read_geometry();
        const std::vector<any_policy> policies = read_policies(geometry);
        if (std::any_of(policies.begin(), policies.end(), &lacks_original_length)) {
            geometry.original_length = read_original_length().value_or(0);
        }
        Encoding encoding = make_encoding(geometry, policies);
        RW_EXPECTS(is_finite(encoding.softmax_factor), "{}: '{}' has a softmax factor of {}", model_.path(),
                   encoding.expression, encoding.softmax_factor);
        return encoding;
    }

private:
    [[nodiscard]] Geometry read_geometry() const {
        Geometry geometry;
        geometry.head_dim = read_head_dim();
        RW_EXPECTS(geometry.head_dim > 0 && geometry.head_dim <= max_head_dim,
                   "{}: head_dim must lie in [1, {}], got {}", model_.path(), max_head_dim, geometry.head_dim);
        geometry.rotary_dim = read_rotary_dim(geometry.head_dim);
        RW_EXPECTS(geometry.rotary_dim > 0, "{}: the rotary part of a head of {} must not be empty, got {} elements",
                   model_.path(), geometry.head_dim, geometry.rotary_dim);
        // DeepSeek-V4 rotates the end of a head.
        if (model_type_ == "deepseek_v4") geometry.rotary_offset = geometry.head_dim - geometry.rotary_dim;
        geometry.base = read_base();
        RW_EXPECTS(is_finite(geometry.base) && geometry.base > 1, "{}: rope_theta must be above 1, got {}",
                   model_.path(), geometry.base);
        geometry.layout = choices_.layout ? *choices_.layout : read_layout();
        geometry.sequence_length = choices_.sequence_length;
        geometry.validate();
        return geometry;
    }

    [[nodiscard]] std::int64_t read_head_dim() const {
        // DeepSeek stores the rotary part in its own tensor.
        if (const auto rotary = model_.integer("qk_rope_head_dim")) return *rotary;
        if (const auto wide = head_dim_of_layer_type()) return *wide;
        if (const auto stated = model_.integer("head_dim")) return *stated;
        for (const char* const key : {"attention_head_dim", "kv_channels"}) {  // Zamba-2, JetMoE
            if (const auto stated = model_.integer(key)) return *stated;
        }
        if (const double standard = default_of(default_head_dims, model_type_); standard != 0) {
            return static_cast<std::int64_t>(standard);
        }
        const auto hidden = model_.integer_of_any({"hidden_size", "n_embd", "d_model"});
        const auto heads = model_.integer_of_any({"num_attention_heads", "n_head", "n_heads"});
        RW_EXPECTS(hidden && heads, "{} lacks 'head_dim', and 'hidden_size' or 'num_attention_heads' to derive it",
                   model_.path());
        RW_EXPECTS(*heads > 0 && *hidden % *heads == 0,
                   "{}: hidden_size {} must be a multiple of num_attention_heads {}", model_.path(), *hidden, *heads);
        return *hidden / *heads;
    }

    /// Returns the wider heads of Gemma-4's layers with full attention: `global_head_dim`, or `per_layer_config` as
    /// Transformers writes it, {"05": {"head_dim": 512}}, or nothing if they have the width of other layers.
    [[nodiscard]] std::optional<std::int64_t> head_dim_of_layer_type() const {
        const std::string& type = choices_.layer_type;
        if (const auto layers = model_.section("per_layer_config")) {
            for (const auto& [key, layer] : layers->subsections()) {
                const std::int64_t index = std::strtol(key.c_str(), nullptr, 10);
                if (!type.empty() && model_.is_listed_at("layer_types", index, type) && layer.has("head_dim"))
                    return layer.integer("head_dim");
            }
            return {};
        }
        if (type != "full_attention") return {};
        const auto stated = model_.integer("global_head_dim");
        return stated || model_type_ != "gemma4_text" ? stated : 512;
    }

    [[nodiscard]] std::int64_t read_rotary_dim(std::int64_t head_dim) const {
        if (model_.has("qk_rope_head_dim") || is_proportional()) return head_dim;
        std::optional<std::int64_t> width;
        const auto choose = [&](const std::string& path, std::optional<std::int64_t> other) {
            RW_EXPECTS(
                !width || !other || *width == *other,
                "{}: partial_rotary_factor or rotary_dim gives a rotary part of {} elements, another key one of {}",
                path, other.value_or(0), width.value_or(0));
            if (other) width = other;
        };
        for (const layer_section& layer : sections_) {
            choose(layer.section.path(), part_of(head_dim, layer.section.number("partial_rotary_factor")));
        }
        if (width && sections_.front().nested) return *width;
        choose(model_.path(), part_of(head_dim, model_.number_of_any({"partial_rotary_factor", "rotary_pct"})));
        choose(model_.path(), model_.integer("rotary_dim"));
        choose(model_.path(), part_of(head_dim, value_of_layers("partial_rotary_factors")));
        if (width) return *width;
        if (model_type_ == "gptj" || model_type_ == "codegen") return 64;
        const double standard = default_of(default_partial_factors, model_type_);
        return standard == 0 ? head_dim : *part_of(head_dim, standard);
    }

    [[nodiscard]] std::optional<std::int64_t> part_of(std::int64_t head_dim, std::optional<double> part) const {
        if (!part) return {};
        RW_EXPECTS(*part > 0 && *part <= 1, "{}: partial_rotary_factor must lie in (0, 1], got {}", model_.path(),
                   *part);
        return static_cast<std::int64_t>(static_cast<double>(head_dim) * *part);  // truncated, as in Transformers
    }

    /// Returns whether the policy is proportional, whose partial_rotary_factor is a parameter and not a width.
    [[nodiscard]] bool is_proportional() const {
        return std::any_of(sections_.begin(), sections_.end(), [](const layer_section& layer) {
            const auto type = layer.section.text("rope_type");
            return type.value_or(layer.section.text("type").value_or("")) == "proportional";
        });
    }

    [[nodiscard]] double read_base() const {
        if (local_base_) return *local_base_;
        std::optional<double> base;
        std::string base_from;
        const auto choose = [&](const std::string& path, std::optional<double> other) {
            RW_EXPECTS(!base || !other || *base == *other, "rope_theta is {} in {} but {} in {}", base.value_or(0),
                       base_from, other.value_or(0), path);
            if (other) base = other, base_from = path;
        };
        for (const layer_section& layer : sections_) choose(layer.section.path(), layer.section.number("rope_theta"));
        if (base && sections_.front().nested) return *base;
        choose("layer_rope_theta", value_of_layers("layer_rope_theta"));
        if (model_.is_list("rope_theta")) {
            choose(model_.path(), value_of_layers("rope_theta"));
        } else {
            choose(model_.path(), model_.number_of_any(
                                      {"rope_theta", "rotary_emb_base", "rotary_embedding_base", "global_rope_theta"}));
        }
        if (base) return *base;
        const double standard = default_of(default_bases, model_type_);
        return standard == 0 ? Geometry{}.base : standard;
    }

    /// Returns the value that the requested layers share in a list with one entry per layer; 0 means no rotation.
    [[nodiscard]] std::optional<double> value_of_layers(const char* key) const {
        std::optional<double> value;
        for (const double entry : model_.numbers_of_layers(key, choices_.layer_type)) {
            if (entry == 0) continue;
            RW_EXPECTS(value.value_or(entry) == entry,
                       "{}.{} has {} and {}: layers that differ need a layer_type that layer_types lists",
                       model_.path(), key, *value, entry);
            value = entry;
        }
        return value;
    }

    /// Returns the base of the sliding layers of Gemma-3 (rope_local_base_freq) and ModernBERT (local_rope_theta).
    [[nodiscard]] std::optional<double> local_base() const {
        if (choices_.layer_type != "sliding_attention") return {};
        if (!sections_.empty() && sections_.front().nested) return {};
        const auto stated = model_.number_of_any({"rope_local_base_freq", "local_rope_theta"});
        const double standard = default_of(default_local_bases, model_type_);
        return stated || standard == 0 ? stated : standard;
    }

    [[nodiscard]] layout_kind read_layout() const {
        const auto interleaves = model_.flag("rope_interleave");
        if (interleaves) return *interleaves ? layout_kind::interleaved : layout_kind::half_split;
        return default_layout(model_type_);
    }

    [[nodiscard]] std::vector<any_policy> read_policies(const Geometry& geometry) const {
        if (!choices_.policy.empty()) return override_policies(geometry);
        // Gemma-3 does not scale its sliding layers; ModernBERT scales both types.
        if (local_base_ && !model_.has("local_rope_theta") && !model_type_.starts_with("modernbert")) return {};
        std::vector<any_policy> policies;
        std::string expression, source;
        const auto choose = [&](std::vector<any_policy> stated, const std::string& key) {
            const std::string text = make_encoding(geometry, stated).expression;
            RW_EXPECTS(source.empty() || expression == text, "{} is '{}' but {} is '{}'", source, expression, key,
                       text);
            policies = std::move(stated), expression = text, source = key;
        };
        for (const layer_section& layer : sections_) {
            choose(policies_of_section(source_of(layer, geometry)), layer.section.path());
        }
        // Early Giraffe models have this key for linear scaling.
        if (const auto scale = model_.number("abacus_scale")) choose({Linear{.factor = *scale}}, "abacus_scale");
        RW_EXPECTS(policies.empty() || !scales_some_layers_only(),
                   "{}: rope_scaling_layers does not list all layers, and only those listed have '{}': pass a policy, "
                   "'default' for the others",
                   model_.path(), expression);
        return policies;
    }

    /// Returns whether Molmo-2's list of scaled layers is incomplete.
    [[nodiscard]] bool scales_some_layers_only() const {
        if (!model_.has("rope_scaling_layers")) return false;
        const auto listed = static_cast<std::int64_t>(model_.required_integers("rope_scaling_layers").size());
        return listed < model_.integer("num_hidden_layers").value_or(listed + 1);
    }

    /// Returns the policies of the caller, with the mrope_section of the model unless they have their own.
    [[nodiscard]] std::vector<any_policy> override_policies(const Geometry& geometry) const {
        std::vector<any_policy> policies = parse_policies(choices_.policy);
        for (const any_policy& policy : policies) {
            if (std::holds_alternative<MRope>(policy)) return policies;
        }
        for (const layer_section& layer : sections_) {
            if (const auto mrope = read_mrope(source_of(layer, geometry))) {
                policies.emplace_back(*mrope);
                break;
            }
        }
        return policies;
    }

    static bool lacks_original_length(const any_policy& policy) {
        return std::visit(
            [](const auto& selected) {
                if constexpr (requires { selected.lacks_original_length(); }) return selected.lacks_original_length();
                return false;
            },
            policy);
    }

    /// Returns original_max_position_embeddings, or max_position_embeddings if the model is not scaled. The latter of a
    /// scaled model can be the extended length.
    [[nodiscard]] std::optional<std::int64_t> read_original_length() const {
        if (const auto length = model_.integer("original_max_position_embeddings")) return length;
        bool scaled = model_.has("abacus_scale");
        for (const layer_section& layer : sections_) {
            if (const auto length = layer.section.integer("original_max_position_embeddings")) return length;
            scaled = scaled || rope_type_of(layer.section) != "default";
        }
        return scaled ? std::nullopt : model_.integer("max_position_embeddings");
    }

    [[nodiscard]] rope_source source_of(const layer_section& layer, const Geometry& geometry) const {
        return {layer.section, model_, model_type_, geometry};
    }

    config_section model_;
    config_choices choices_;
    std::string model_type_;
    std::vector<layer_section> sections_;  ///< rope_parameters and rope_scaling, if present; they must agree
    std::optional<double> local_base_;
};

}  // namespace detail

/// Returns the encoding of a model's configuration, a config.json of Hugging Face.
///
/// Reads `rope_scaling` and the newer `rope_parameters` (one layer type if they are nested) with every rope_type of
/// Transformers 5.24, `rope_theta`, `head_dim`, `partial_rotary_factor` and their other names. Defaults of model code
/// are in model_defaults.hpp.
///
/// Throws ropewalk::error, one line that names the key, for an unknown rope_type, a missing or unknown key, a value of
/// the wrong type, keys that contradict each other, and models or layers that rotate differently or not at all.
inline Encoding encoding_from_config(const nlohmann::json& config, const config_choices& choices = {}) {
    RW_EXPECTS(config.is_object(), "the configuration must be an object, got {}", config.type_name());
    const config_section whole(config, "the configuration");
    const bool has_text = whole.section("text_config").has_value();
    const nlohmann::json model =
        detail::split_by_layer_type(has_text ? config["text_config"] : config, choices.layer_type);
    return detail::config_reader({model, has_text ? "text_config" : whole.path()}, choices).read();
}

/// The same for a file, or for the config.json in a folder.
inline Encoding encoding_from_config_file(const std::filesystem::path& path, const config_choices& choices = {}) {
    if (!is_folder(path)) return encoding_from_config(parse_config_file(path), choices);
    const std::filesystem::path file = path / "config.json";
    RW_EXPECTS(is_there(file), "{} is a folder without a config.json", path.string());
    return encoding_from_config(parse_config_file(file), choices);
}

}  // namespace ropewalk
