// The rotary part of a Hugging Face config.json. Optional: needs nlohmann/json.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ropewalk/encoding.hpp"
#include "ropewalk/io/flat_schemes.hpp"
#include "ropewalk/io/model_refusals.hpp"
#include "ropewalk/io/parse_config.hpp"
#include "ropewalk/io/rope_schemes.hpp"

namespace ropewalk {

/// What a configuration leaves open.
struct config_choices {
    std::string layer_type{};             ///< "full_attention", "sliding_attention", … where layers differ
    std::int64_t sequence_length = 0;     ///< tokens, for schemes that depend on it; 0: not known
    std::optional<layout_kind> layout{};  ///< in place of the one that the kind of model has
    /// An expression in place of the configuration's scheme, "yarn:8,original_length=4096" say. Base, widths and
    /// mrope_section stay.
    std::string policy{};
};

namespace detail {

/// No head is wider than this, and frequencies take a microsecond each.
inline constexpr std::int64_t widest_head = 16384;

/// The section of one layer type where `whole` has one a layer type, else itself.
struct layer_section {
    config_section section;
    bool nested;
};

inline layer_section of_layer_type(const config_section& whole, const std::string& layer_type) {
    const auto parts = whole.subsections();
    if (parts.empty()) return {whole, false};
    std::string known;
    for (const auto& [key, part] : parts) known += (known.empty() ? "" : ", ") + shown_name(key);
    const auto is_part = [&](const std::string& name) {
        return std::any_of(parts.begin(), parts.end(), [&](const auto& part) { return part.first == name; });
    };
    whole.expect_only(is_part, "a section with one part a layer type (" + known + ")");
    for (const auto& [key, part] : parts) {
        if (key == layer_type || (parts.size() == 1 && layer_type.empty())) return {part, true};
    }
    fail("{} differs by layer type: layer_type must be one of {}, got '{}'", whole.path(), known,
         shown_name(layer_type));
}

/// A layer type that nothing in the configuration mentions is a misspelling.
inline void check_layer_type(const config_section& model, const std::string& layer_type) {
    if (layer_type.empty() || layer_type == "full_attention" || layer_type == "sliding_attention") return;
    for (const char* const key : {"rope_parameters", "rope_scaling"}) {
        const auto parameters = model.section(key);
        if (parameters && parameters->section(layer_type.c_str())) return;
    }
    RW_EXPECTS(model.lists("layer_types", layer_type), "layer_type '{}' is not among the configuration's layer_types",
               shown_name(layer_type));
}

/// Reads one layer type of one model.
class config_reader {
public:
    config_reader(const config_section& model, const config_choices& choices)
        : model_(model), choices_(choices), model_type_(model.text("model_type").value_or("")) {
        refuse_other_codes(model_, model_type_, choices_.policy.empty());
        check_layer_type(model_, choices_.layer_type);
        refuse_layers_without_rotation(model_, model_type_, choices_.layer_type);
        for (const char* const key : {"rope_parameters", "rope_scaling"}) {
            const auto whole = model_.section(key);
            if (whole && !whole->empty()) sections_.push_back(of_layer_type(*whole, choices_.layer_type));
        }
        local_base_ = local_base();
        RW_EXPECTS(!sections_.empty() || !choices_.policy.empty() || !contains(models_with_own_scheme, model_type_),
                   "{} lacks 'rope_parameters', for which the code of {} has a scheme of its own", model_.path(),
                   model_type_);
    }

    [[nodiscard]] Encoding read() const {
        const Geometry geometry = read_geometry();
        const std::vector<any_policy> policies = read_policies(geometry);
        Encoding encoding = make_encoding(geometry, policies);
        RW_EXPECTS(is_finite(encoding.softmax_factor), "{}: '{}' has a softmax factor of {}", model_.path(),
                   encoding.expression, encoding.softmax_factor);
        return encoding;
    }

private:
    [[nodiscard]] Geometry read_geometry() const {
        Geometry geometry;
        geometry.head_dim = read_head_dim();
        RW_EXPECTS(geometry.head_dim > 0 && geometry.head_dim <= widest_head,
                   "{}: head_dim must lie in [1, {}], got {}", model_.path(), widest_head, geometry.head_dim);
        geometry.rotary_dim = read_rotary_dim(geometry.head_dim);
        RW_EXPECTS(geometry.rotary_dim > 0, "{}: the rotary part of a head of {} has {} elements", model_.path(),
                   geometry.head_dim, geometry.rotary_dim);
        // DeepSeek-V4 turns the end of a head.
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
        // DeepSeek's rotary part is a tensor of its own.
        if (const auto rotary = model_.integer("qk_rope_head_dim")) return *rotary;
        if (const auto wide = head_dim_of_layer_type()) return *wide;
        if (const auto stated = model_.integer("head_dim")) return *stated;
        for (const char* const key : {"attention_head_dim", "kv_channels"}) {  // Zamba-2, JetMoE
            if (const auto stated = model_.integer(key)) return *stated;
        }
        if (const double usual = default_of(default_head_dims, model_type_); usual != 0) {
            return static_cast<std::int64_t>(usual);
        }
        const auto hidden = model_.integer_of_any({"hidden_size", "n_embd", "d_model"});
        const auto heads = model_.integer_of_any({"num_attention_heads", "n_head", "n_heads"});
        RW_EXPECTS(hidden && heads, "{} lacks 'head_dim', and 'hidden_size' or 'num_attention_heads' as well",
                   model_.path());
        RW_EXPECTS(*heads > 0 && *hidden % *heads == 0, "{}: hidden_size {} is no multiple of num_attention_heads {}",
                   model_.path(), *hidden, *heads);
        return *hidden / *heads;
    }

    /// Gemma-4's layers with full attention have wider heads: `global_head_dim`, or `per_layer_config` as Transformers
    /// writes it, {"05": {"head_dim": 512}}, or neither where they have the usual width.
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
            RW_EXPECTS(!width || !other || *width == *other,
                       "{}: partial_rotary_factor or rotary_dim makes the rotary part {} wide, another key {}", path,
                       other.value_or(0), width.value_or(0));
            if (other) width = other;
        };
        for (const layer_section& one : sections_) {
            choose(one.section.path(), part_of(head_dim, one.section.number("partial_rotary_factor")));
        }
        if (width && sections_.front().nested) return *width;
        choose(model_.path(), part_of(head_dim, model_.number_of_any({"partial_rotary_factor", "rotary_pct"})));
        choose(model_.path(), model_.integer("rotary_dim"));
        choose(model_.path(), part_of(head_dim, value_of_layers("partial_rotary_factors")));
        if (width) return *width;
        if (model_type_ == "gptj" || model_type_ == "codegen") return 64;
        const double usual = default_of(default_partial_factors, model_type_);
        return usual == 0 ? head_dim : *part_of(head_dim, usual);
    }

    [[nodiscard]] std::optional<std::int64_t> part_of(std::int64_t head_dim, std::optional<double> part) const {
        if (!part) return {};
        RW_EXPECTS(*part > 0 && *part <= 1, "{}: partial_rotary_factor must lie in (0, 1], got {}", model_.path(),
                   *part);
        return static_cast<std::int64_t>(static_cast<double>(head_dim) * *part);  // truncated as in Transformers
    }

    /// Its partial_rotary_factor is a parameter of the scheme, not a width.
    [[nodiscard]] bool is_proportional() const {
        return std::any_of(sections_.begin(), sections_.end(), [](const layer_section& one) {
            const auto type = one.section.text("rope_type");
            return type.value_or(one.section.text("type").value_or("")) == "proportional";
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
        for (const layer_section& one : sections_) choose(one.section.path(), one.section.number("rope_theta"));
        if (base && sections_.front().nested) return *base;
        choose("layer_rope_theta", value_of_layers("layer_rope_theta"));
        if (model_.is_list("rope_theta")) {
            choose(model_.path(), value_of_layers("rope_theta"));
        } else {
            choose(model_.path(), model_.number_of_any(
                                      {"rope_theta", "rotary_emb_base", "rotary_embedding_base", "global_rope_theta"}));
        }
        if (base) return *base;
        const double usual = default_of(default_bases, model_type_);
        return usual == 0 ? Geometry{}.base : usual;
    }

    /// A list with an entry a layer, 0 for layers that do not turn: what the layers asked for agree on.
    [[nodiscard]] std::optional<double> value_of_layers(const char* key) const {
        std::optional<double> value;
        for (const double one : model_.numbers_of_layers(key, choices_.layer_type)) {
            if (one == 0) continue;
            RW_EXPECTS(value.value_or(one) == one,
                       "{}.{} has {} and {}: its layers differ, which is supported where layer_type and layer_types "
                       "tell them apart",
                       model_.path(), key, *value, one);
            value = one;
        }
        return value;
    }

    /// Gemma-3's sliding layers have a base of their own; ModernBERT names both bases anew.
    [[nodiscard]] std::optional<double> local_base() const {
        if (choices_.layer_type != "sliding_attention") return {};
        if (!sections_.empty() && sections_.front().nested) return {};
        const auto stated = model_.number_of_any({"rope_local_base_freq", "local_rope_theta"});
        const double usual = default_of(default_local_bases, model_type_);
        return stated || usual == 0 ? stated : usual;
    }

    [[nodiscard]] layout_kind read_layout() const {
        const auto interleaves = model_.flag("rope_interleave");
        if (interleaves) return *interleaves ? layout_kind::interleaved : layout_kind::half_split;
        return default_layout(model_type_);
    }

    [[nodiscard]] std::vector<any_policy> read_policies(const Geometry& geometry) const {
        if (!choices_.policy.empty()) return override_policies(geometry);
        // Gemma-3 scales its other layers only; ModernBERT would scale both.
        if (local_base_ && !model_.has("local_rope_theta") && !model_type_.starts_with("modernbert")) return {};
        std::vector<any_policy> chosen;
        std::string chosen_text, chosen_by;
        const auto choose = [&](std::vector<any_policy> policies, const std::string& key) {
            const std::string text = make_encoding(geometry, policies).expression;
            RW_EXPECTS(chosen_by.empty() || chosen_text == text, "{} says '{}' but {} says '{}'", chosen_by,
                       chosen_text, key, text);
            chosen = std::move(policies), chosen_text = text, chosen_by = key;
        };
        for (const layer_section& one : sections_) {
            choose(policies_of_scheme(source_of(one, geometry)), one.section.path());
        }
        // Early Giraffe models call linear scaling so.
        if (const auto scale = model_.number("abacus_scale")) choose({Linear{.factor = *scale}}, "abacus_scale");
        RW_EXPECTS(chosen.empty() || !scales_some_layers_only(),
                   "{}: rope_scaling_layers does not list all layers, and '{}' holds for those listed only: give a "
                   "policy, 'default' for the others",
                   model_.path(), chosen_text);
        return chosen;
    }

    /// Molmo-2 lists the layers that it scales.
    [[nodiscard]] bool scales_some_layers_only() const {
        if (!model_.has("rope_scaling_layers")) return false;
        const auto listed = static_cast<std::int64_t>(model_.required_integers("rope_scaling_layers").size());
        return listed < model_.integer("num_hidden_layers").value_or(listed + 1);
    }

    [[nodiscard]] std::vector<any_policy> override_policies(const Geometry& geometry) const {
        std::vector<any_policy> policies = parse_policies(choices_.policy);
        for (const any_policy& one : policies) {
            if (std::holds_alternative<MRope>(one)) return policies;
        }
        for (const layer_section& one : sections_) {
            if (const auto mrope = read_mrope(source_of(one, geometry))) {
                policies.emplace_back(*mrope);
                break;
            }
        }
        return policies;
    }

    [[nodiscard]] scheme_source source_of(const layer_section& one, const Geometry& geometry) const {
        return {one.section, model_, model_type_, geometry};
    }

    config_section model_;
    config_choices choices_;
    std::string model_type_;
    std::vector<layer_section> sections_;  ///< what there is of rope_parameters and rope_scaling; they must agree
    std::optional<double> local_base_;
};

}  // namespace detail

/// The encoding of a model's configuration, a config.json of Hugging Face. Reads `rope_scaling` and the newer
/// `rope_parameters` (a layer type at a time where they are nested), of every rope_type of Transformers 5.23,
/// `rope_theta`, `head_dim`, `partial_rotary_factor` and their other names; what a model's code fills in by itself is
/// in model_defaults.hpp. Throws ropewalk::error, one line that names the key, for a scheme that is unknown, lacks
/// something, has a key that is not known for it or a value of the wrong type, for keys that contradict each other, and
/// for models or layers that turn otherwise or not at all, by what they say or by what their code is known to do.
inline Encoding encoding_from_config(const nlohmann::json& config, const config_choices& choices = {}) {
    RW_EXPECTS(config.is_object(), "the configuration must be an object, got {}", config.type_name());
    const config_section whole(config, "the configuration");
    const bool has_text = whole.section("text_config").has_value();
    const nlohmann::json model =
        detail::with_schemes_by_layer_type(has_text ? config["text_config"] : config, choices.layer_type);
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
