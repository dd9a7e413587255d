// Reader of the rotary part of a Hugging Face config.json. Optional: needs nlohmann/json.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "ropewalk/encoding.hpp"
#include "ropewalk/io/layer_types.hpp"
#include "ropewalk/io/model_code.hpp"
#include "ropewalk/io/parse_config.hpp"
#include "ropewalk/io/position_keys.hpp"
#include "ropewalk/io/rope_types.hpp"
#include "ropewalk/io/unsupported_models.hpp"

namespace ropewalk {

/// Options of encoding_from_config().
struct config_choices {
    std::string layer_type{};             ///< "full_attention", "sliding_attention", … if layers differ
    std::int64_t sequence_length = 0;     ///< tokens, for policies that depend on it; 0: unknown
    std::optional<layout_kind> layout{};  ///< replaces the layout of the model_type
    /// An expression that replaces the scaling of the configuration, for example "yarn:8". Base, layout, rotary part
    /// and mrope_section stay, and the policies may use the original length of the model.
    std::string policy{};
};

namespace detail {

/// The largest head_dim of a configuration. Every pair costs about a microsecond.
inline constexpr std::int64_t max_head_dim = 16384;
/// The largest number of layer types and of models inside each other. Published models have four and two.
inline constexpr std::size_t max_layer_types = 256, max_nested_models = 4;

/// A section of one layer type, or of all layers if it has no parts.
struct layer_section {
    config_section section;
    bool nested;
    bool from_code = false;  ///< the default of the model's code
};

/// Returns the part of a layer type, or the whole section if it has no parts.
inline layer_section of_layer_type(const config_section& whole, const std::string& layer_type) {
    const auto parts = whole.subsections();
    if (parts.empty()) return {whole, false};
    RW_EXPECTS(parts.size() <= max_layer_types, "{} has {} parts, at most {} layer types are read", whole.path(),
               parts.size(), max_layer_types);
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
         shown_name(layer_type), shown_suggestion(layer_type, names));
}

/// Throws for a layer type that neither the configuration nor the model's code mentions.
inline void check_layer_type(const config_section& model, const config_section& defaults,
                             const std::string& layer_type) {
    constexpr std::array<std::string_view, 2> usual{"full_attention", "sliding_attention"};
    if (layer_type.empty() || contains(usual, layer_type)) return;
    for (const config_section& keys : {model, defaults}) {
        for (const char* const key : {"rope_parameters", "rope_scaling"}) {
            const auto parameters = keys.section(key);
            if (parameters && parameters->section(layer_type.c_str())) return;
        }
    }
    RW_EXPECTS(defaults.lists("layer_kinds", layer_type) || model.lists("layer_types", layer_type),
               "layer_type '{}' is not among the configuration's layer_types{}", shown_name(layer_type),
               suggestion(layer_type, usual));
}

/// Returns whether the code of a model does not use a key of a file.
inline bool ignores_key(const config_section& defaults, const std::string& key) {
    return defaults.has("ignores") && defaults.lists("ignores", key);
}

/// Rejects rope sections that the code of the model ignores: Gemma-3 needs one part per layer type in rope_parameters.
inline void reject_ignored_sections(const config_section& model, const model_code& code) {
    const config_section defaults(code.defaults, "the code of " + code.model_type);
    for (const char* const key : {"rope_parameters", "rope_scaling"}) {
        const auto section = ignores_key(defaults, key) ? model.section(key) : std::nullopt;
        if (!section || section->empty() || !section->subsections().empty()) continue;
        RW_EXPECTS(rope_type_of(*section) == "default", "{}: the code of {} ignores {}{}", model.path(),
                   code.model_type, key,
                   ignores_key(defaults, "rope_scaling") ? "" : " without one part per layer type");
    }
}

/// Reads the encoding of one layer type of one model. The order of precedence is that of Transformers: keys of a rope
/// section, keys of the model, defaults of the model's code.
class config_reader {
public:
    config_reader(const config_section& model, const model_code& code, const config_choices& choices)
        : model_(model), code_(code), choices_(choices), defaults_(code.defaults, "the code of " + code.model_type) {
        reject_unsupported_model(model_, code_, defaults_, choices_.policy.empty());
        check_layer_type(model_, defaults_, choices_.layer_type);
        reject_layers_without_rotation(model_, code_, defaults_, choices_.layer_type);
        for (const char* const key : {"rope_parameters", "rope_scaling"}) {
            const auto whole = model_.section(key);
            if (!whole || whole->empty()) continue;
            sections_.push_back(of_layer_type(*whole, choices_.layer_type));
            for (const auto& [layer_type, part] : whole->subsections()) {
                if (rope_type_of(part) != "default") scaled_parts_.push_back(part);
            }
        }
        reject_ignored_base();
        if (sections_.empty()) add_default_section();
        if (code_.model_type == "deepseek_v4") (void)model_.number("compress_rope_theta");  // read in layer_types.hpp
        local_base_ = read_local_base();
        RW_EXPECTS(
            code_.model_type.empty() || code_.is_known() || names_rotary_positions(),
            "{}: model_type '{}' is not known, and no key names a rotary encoding: state rope_theta if the model "
            "rotates",
            model_.path(), shown_name(code_.model_type));
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
        reject_unread_keys(model_, code_, model_.json(), model_.path());
        return encoding;
    }

private:
    /// Rejects a base that the code of the model ignores: GPT-J's is fixed, others read it only from a rope section.
    void reject_ignored_base() const {
        if (ignores_key(defaults_, "rope_theta") && ignores_key(defaults_, "rope_scaling")) {
            const double fixed = defaults_.number("rope_theta").value_or(Geometry{}.base);
            const auto expect_fixed = [&](const config_section& part) {
                const double base = part.number("rope_theta").value_or(fixed);
                RW_EXPECTS(base == fixed, "{}: the code of {} ignores rope_theta ({}): its base is {}", part.path(),
                           code_.model_type, base, fixed);
            };
            expect_fixed(model_);
            for (const layer_section& layer : sections_) expect_fixed(layer.section);
            return;
        }
        if (!sections_.empty() || !ignores_key(defaults_, "rope_theta") || model_.is_list("rope_theta")) return;
        const auto base = model_.number("rope_theta");
        if (!base || base == defaults_.number("rope_theta")) return;
        const auto own = defaults_.section("rope_parameters");
        const auto parts = own ? own->subsections() : std::vector<std::pair<std::string, config_section>>{};
        const bool same = (own && base == own->number("rope_theta")) ||
                          std::any_of(parts.begin(), parts.end(),
                                      [&](const auto& part) { return base == part.second.number("rope_theta"); });
        RW_EXPECTS(same,
                   "{}: the code of {} ignores rope_theta ({}) without a rope section: state it in rope_parameters",
                   model_.path(), code_.model_type, *base);
    }

    /// Adds the section of the model's code for a configuration without one.
    void add_default_section() {
        const std::string path = "the code of " + code_.model_type;
        if (const auto whole = defaults_.section("rope_parameters")) {
            // Keys of the model give the same for plain parts, if its code reads them.
            const bool states_both =
                code_.model_type.starts_with("modernbert") && model_.has_any({"global_rope_theta", "local_rope_theta"});
            const bool states_base = model_.has_any({"rope_theta", "rope_local_base_freq", "swa_rope_theta"});
            const bool reads_base = !ignores_key(defaults_, "rope_theta");
            if (has_plain_parts(*whole) &&
                (states_both || (reads_base && (choices_.layer_type.empty() || states_base))))
                return;
            const config_section part = of_layer_type(*whole, choices_.layer_type).section;
            sections_.push_back({config_section(part.json(), path), false, true});
        } else if (defaults_.has("mrope_section")) {
            sections_.push_back({config_section(no_keys_, path), false, true});
        }
    }

    /// Returns whether a section has one part per layer type, all without scaling.
    [[nodiscard]] static bool has_plain_parts(const config_section& whole) {
        const auto parts = whole.subsections();
        return !parts.empty() && std::all_of(parts.begin(), parts.end(),
                                             [](const auto& part) { return rope_type_of(part.second) == "default"; });
    }

    /// Returns whether a section without parts applies to the requested layers. Gemma-3 does not scale its sliding
    /// layers; ModernBERT scales both types.
    [[nodiscard]] bool applies(const layer_section& layer) const {
        if (layer.nested || layer.from_code) return true;
        if (!defaults_.has("scaled_layers")) return !local_base_ || model_.has("local_rope_theta");
        const auto own = defaults_.section("rope_parameters");
        const bool needs_parts = defaults_.list_is_empty("scaled_layers") &&
                                 (rope_type_of(layer.section) != "default" || (own && !has_plain_parts(*own)));
        RW_EXPECTS(!needs_parts, "{}: the code of {} needs one section per layer type, such as rope_parameters.{}",
                   layer.section.path(), code_.model_type, "full_attention");
        return choices_.layer_type.empty() || defaults_.lists("scaled_layers", choices_.layer_type);
    }

    /// Returns whether any key of the model, except lengths, names a position encoding.
    [[nodiscard]] bool names_rotary_positions() const {
        const auto keys = model_.json().items();
        return std::any_of(keys.begin(), keys.end(), [](const auto& item) {
            return !item.value().is_null() && names_positions(item.key()) && !is_harmless(item.key(), item.value());
        });
    }

    [[nodiscard]] Geometry read_geometry() const {
        Geometry geometry;
        geometry.head_dim = read_head_dim();
        RW_EXPECTS(geometry.head_dim > 0 && geometry.head_dim <= max_head_dim,
                   "{}: head_dim must lie in [1, {}], got {}", model_.path(), max_head_dim, geometry.head_dim);
        geometry.rotary_dim = read_rotary_dim(geometry.head_dim);
        RW_EXPECTS(geometry.rotary_dim > 0, "{}: the rotary part of a head of {} must not be empty, got {} elements",
                   model_.path(), geometry.head_dim, geometry.rotary_dim);
        if (rotates_end_of_head()) geometry.rotary_offset = geometry.head_dim - geometry.rotary_dim;
        geometry.base = read_base();
        RW_EXPECTS(is_finite(geometry.base) && geometry.base > 1, "{}: rope_theta must be above 1, got {}",
                   model_.path(), geometry.base);
        const layout_kind own = read_layout();
        geometry.layout = choices_.layout ? *choices_.layout : own;
        geometry.sequence_length = choices_.sequence_length;
        geometry.validate();
        return geometry;
    }

    /// DeepSeek-V4 rotates the last elements of a head. Its ancestors have them in a tensor of their own.
    [[nodiscard]] bool rotates_end_of_head() const { return code_.model_type == "deepseek_v4"; }

    [[nodiscard]] bool states_head_dim() const {
        return model_.has_any({"head_dim", "attention_head_dim", "kv_channels"});
    }

    /// Returns whether the rotary part of a head has a width of its own, as in latent attention. DeepSeek's code has
    /// Llama's attention if `use_mla` is false.
    [[nodiscard]] bool is_latent() const {
        return model_.flag("use_mla").value_or(true) && model_.integer("qk_rope_head_dim") != 0;
    }

    [[nodiscard]] std::optional<std::int64_t> hidden_size() const {
        return model_.integer_of_any({"hidden_size", "n_embd", "d_model"});
    }

    [[nodiscard]] std::int64_t read_head_dim() const {
        const auto rotary = model_.integer("qk_rope_head_dim");
        if (rotary && is_latent() && !rotates_end_of_head()) return *rotary;
        if (const auto special = head_dim_of_layer_type()) return *special;
        for (const char* const key : {"head_dim", "attention_head_dim", "kv_channels"}) {  // Llama, Zamba-2, JetMoE
            if (const auto stated = model_.integer(key)) return *stated;
        }
        for (const char* const key : {"qk_rope_head_dim", "head_dim"}) {
            if (const auto standard = defaults_.integer(key); standard && is_latent()) return *standard;
        }
        const auto projected = model_.integer("attention_projection_size");
        RW_EXPECTS(!projected || projected == hidden_size(),
                   "{}: attention_projection_size {} differs from hidden_size, which is not supported", model_.path(),
                   projected.value_or(0));
        if (const auto needed = defaults_.text("requires")) fail("{} lacks '{}'", model_.path(), *needed);
        auto hidden = hidden_size();
        auto heads = model_.integer_of_any({"num_attention_heads", "n_head", "n_heads"});
        if (!hidden) hidden = defaults_.integer("hidden_size");
        if (!heads) heads = defaults_.integer("num_attention_heads");
        RW_EXPECTS(hidden && heads, "{} lacks 'head_dim', and 'hidden_size' or 'num_attention_heads' to derive it",
                   model_.path());
        RW_EXPECTS(*heads > 0 && *hidden % *heads == 0,
                   "{}: hidden_size {} must be a multiple of num_attention_heads {}", model_.path(), *hidden, *heads);
        return *hidden / *heads;
    }

    /// Returns the head_dim of layer types that have their own: `swa_head_dim` of MiMo, `global_head_dim` of Gemma-4,
    /// or its `per_layer_config` as Transformers writes it, {"05": {"head_dim": 512}}.
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
        if (type == "sliding_attention") return model_.integer("swa_head_dim");
        if (type != "full_attention") return {};
        const auto stated = model_.integer("global_head_dim");
        return stated ? stated : defaults_.integer("global_head_dim");
    }

    [[nodiscard]] std::int64_t read_rotary_dim(std::int64_t head_dim) const {
        std::optional<std::int64_t> width;
        const auto choose = [&](const std::string& path, std::optional<std::int64_t> other) {
            RW_EXPECTS(
                !width || !other || *width == *other,
                "{}: partial_rotary_factor or rotary_dim gives a rotary part of {} elements, another key one of {}",
                path, other.value_or(0), width.value_or(0));
            if (other) width = other;
        };
        const auto of_model = model_.number_of_any({"partial_rotary_factor", "rotary_pct", "rope_pct", "rope_percent",
                                                    "rotary_percent", "rotary_emb_fraction"});
        const auto of_layers = value_of_layers("partial_rotary_factors");
        const auto stated = model_.integer_of_any({"rotary_dim", "attn_rotary_emb"});
        if (is_proportional()) return head_dim;
        if (const auto rotary = model_.integer("qk_rope_head_dim"); rotary && is_latent()) return *rotary;
        if (defaults_.has("qk_rope_head_dim") && !states_head_dim()) return head_dim;
        for (const layer_section& layer : sections_) {
            choose(layer.section.path(), part_of(head_dim, layer.section.number("partial_rotary_factor")));
        }
        if (width && sections_.front().nested) return *width;
        choose(model_.path(), part_of(head_dim, of_model));
        RW_EXPECTS(!stated || !ignores_key(defaults_, "rotary_dim") || *stated == width.value_or(head_dim),
                   "{}: the code of {} ignores rotary_dim ({}): state partial_rotary_factor", model_.path(),
                   code_.model_type, *stated);
        choose(model_.path(), stated);
        choose(model_.path(), part_of(head_dim, of_layers));
        if (width) return *width;
        if (const auto standard = defaults_.integer("rotary_dim")) return *standard;
        return part_of(head_dim, defaults_.number("partial_rotary_factor")).value_or(head_dim);
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
        std::optional<double> base;
        std::string base_from;
        const auto choose = [&](const std::string& path, std::optional<double> other) {
            RW_EXPECTS(!base || !other || *base == *other, "rope_theta is {} in {} but {} in {}", base.value_or(0),
                       base_from, other.value_or(0), path);
            if (other) base = other, base_from = path;
        };
        const auto of_layers = value_of_layers("layer_rope_theta");
        const auto of_model = read_base_of_model();
        const bool has_own = !sections_.empty() && sections_.front().from_code;
        if (local_base_ && !has_own) return *local_base_;
        for (const layer_section& layer : sections_) choose(layer.section.path(), layer.section.number("rope_theta"));
        if (base && sections_.front().nested) return *base;
        if (local_base_) {
            choose(model_.path(), local_base_);
        } else {
            choose("layer_rope_theta", of_layers);
            choose(model_.path(), of_model);
        }
        if (base) return *base;
        return defaults_.number("rope_theta").value_or(Geometry{}.base);
    }

    /// Returns the base that the model states outside its rope section.
    [[nodiscard]] std::optional<double> read_base_of_model() const {
        if (model_.is_list("rope_theta")) return value_of_layers("rope_theta");
        auto base =
            model_.number_of_any({"rope_theta", "rotary_emb_base", "rotary_embedding_base", "rope_base", "rotary_base",
                                  "rope_embedding_base", "rope_freq_constant", "global_rope_theta"});
        if (const auto attention = model_.section("attn_config")) {  // DBRX, MPT
            const auto other = attention->number("rope_theta");
            RW_EXPECTS(!base || !other || *base == *other, "rope_theta is {} in {} but {} in {}", base.value_or(0),
                       model_.path(), other.value_or(0), attention->path());
            if (!base) base = other;
        }
        if (const auto ratio = model_.number("rope_ratio")) {  // ChatGLM
            base = *ratio * (base ? *base : defaults_.number("rope_theta").value_or(Geometry{}.base));
        }
        return base;
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

    /// Returns the base of the sliding layers of Gemma-3 (rope_local_base_freq), ModernBERT (local_rope_theta) and MiMo
    /// (swa_rope_theta).
    [[nodiscard]] std::optional<double> read_local_base() const {
        const auto stated = model_.number_of_any({"rope_local_base_freq", "local_rope_theta", "swa_rope_theta"});
        if (choices_.layer_type != "sliding_attention") return {};
        if (!sections_.empty() && sections_.front().nested) return {};
        if (stated || (!sections_.empty() && sections_.front().from_code)) return stated;
        return defaults_.number_of_any({"rope_local_base_freq", "swa_rope_theta"});
    }

    [[nodiscard]] layout_kind read_layout() const {
        const auto interleaves = model_.flag_of_any({"rope_interleave", "rotary_emb_interleaved"});
        if (interleaves) return *interleaves ? layout_kind::interleaved : layout_kind::half_split;
        if (!is_latent()) return layout_kind::half_split;
        RW_EXPECTS(code_.is_known() || choices_.layout || !model_.has("qk_rope_head_dim"),
                   "{}: the layout of latent attention is not known without a known model_type: pass a layout",
                   model_.path());
        return code_.layout();
    }

    [[nodiscard]] std::vector<any_policy> read_policies(const Geometry& geometry) const {
        const auto scale = model_.number("abacus_scale");
        const bool scales_some = scales_some_layers_only();
        if (!choices_.policy.empty()) return override_policies(geometry);
        std::vector<any_policy> policies;
        std::string expression, source;
        const auto choose = [&](std::vector<any_policy> stated, const std::string& key) {
            const std::string text = make_encoding(geometry, stated).expression;
            RW_EXPECTS(source.empty() || expression == text, "{} is '{}' but {} is '{}'", source, expression, key,
                       text);
            policies = std::move(stated), expression = text, source = key;
        };
        for (const layer_section& layer : sections_) {
            if (applies(layer)) choose(policies_of_section(source_of(layer, geometry)), layer.section.path());
        }
        if (const auto attention = model_.section("attn_config")) {
            if (auto scaling = read_attention_config(*attention); !scaling.empty())
                choose(std::move(scaling), attention->path());
        }
        // Early Giraffe models have this key for linear scaling.
        if (scale) choose({Linear{.factor = *scale}}, "abacus_scale");
        RW_EXPECTS(policies.empty() || !scales_some,
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

    /// Returns the policies of the caller. The rotary part and the mrope_section of the model stay unless the policies
    /// have their own.
    [[nodiscard]] std::vector<any_policy> override_policies(const Geometry& geometry) const {
        std::vector<any_policy> policies = parse_policies(choices_.policy);
        const auto has = [&]<class P>(std::type_identity<P>) {
            return std::any_of(policies.begin(), policies.end(),
                               [](const any_policy& policy) { return std::holds_alternative<P>(policy); });
        };
        for (const layer_section& layer : sections_) {
            const rope_source source = source_of(layer, geometry);
            if (const auto mrope = read_mrope(source); mrope && !has(std::type_identity<MRope>{})) {
                policies.emplace_back(*mrope);
            }
            // HunYuan's alpha belongs to its trained base.
            if (const double alpha = layer.section.number("alpha").value_or(0);
                alpha != 0 && rope_type_of(layer.section) == "dynamic") {
                policies.insert(policies.begin(), Ntk{.alpha = alpha});
            }
            if (is_proportional() && !has(std::type_identity<Proportional>{})) {
                Proportional part = std::get<Proportional>(read_proportional(source));
                part.factor = 1;
                policies.insert(policies.begin(), part);
            }
        }
        // DeepSeek-V4's code omits YaRN's attention factor, whatever the parameters.
        for (any_policy& policy : policies) {
            auto* const yarn = std::get_if<Yarn>(&policy);
            if (yarn != nullptr && rotates_end_of_head() && !yarn->attention_factor_given) {
                yarn->attention_factor_given = 1.0;
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
        // The trained length is that of the model, whichever layers are scaled.
        for (const config_section& part : scaled_parts_) {
            if (const auto length = part.integer("original_max_position_embeddings")) return length;
            scaled = true;
        }
        return scaled ? std::nullopt : model_.integer("max_position_embeddings");
    }

    [[nodiscard]] rope_source source_of(const layer_section& layer, const Geometry& geometry) const {
        return {layer.section, model_, defaults_, code_, geometry};
    }

    config_section model_;
    const model_code& code_;
    config_choices choices_;
    config_section defaults_;
    nlohmann::json no_keys_ = nlohmann::json::object();
    std::vector<layer_section> sections_;       ///< rope_parameters and rope_scaling, if present; they must agree
    std::vector<config_section> scaled_parts_;  ///< of all layer types
    std::optional<double> local_base_;
};

/// Reads one model, the language model if the configuration has several.
inline Encoding read_model(const nlohmann::json& stated, const std::string& path, const model_code& code,
                           const config_choices& choices) {
    reject_ignored_sections({stated, path}, code);
    const nlohmann::json model = split_by_layer_type(stated, code.model_type, choices.layer_type);
    return config_reader({model, path}, code, choices).read();
}

/// Returns the key of the language model in a configuration of several models, or "". The table of models has the keys
/// of those that have another.
inline std::string language_model_key(const nlohmann::json& config, const model_code& code) {
    std::string own = text_or_nothing(code.defaults, "text_key");
    own = own.substr(0, own.find('.'));
    std::string found;
    for (const std::string& key : {own, std::string("text_config"), std::string("language_config"),
                                   std::string("llm_config"), std::string("thinker_config")}) {
        const auto part = config.find(key);
        if (part == config.end() || part->is_null()) continue;
        RW_EXPECTS(part->is_object(), "the configuration.{} must be an object, got {}", key, shown(*part));
        RW_EXPECTS(found.empty() || config[found] == *part, "the configuration has two language models, '{}' and '{}'",
                   found, key);
        if (found.empty()) found = key;
    }
    return found;
}

/// Throws for keys around the language model's part that would give it another encoding. Model code ignores them.
inline void reject_keys_around(const nlohmann::json& whole, const nlohmann::json& model, const std::string& path,
                               const model_code& code, const config_choices& choices, const Encoding& encoding) {
    for (const auto& [key, value] : whole.items()) {
        if (value.is_null() || !names_positions(key) || is_harmless(key, value)) continue;
        nlohmann::json merged = model;
        merged[key] = value;
        bool same = false;
        try {
            const Encoding other = read_model(merged, path, code, choices);
            same = other.steps == encoding.steps && other.expression == encoding.expression &&
                   other.geometry.layout == encoding.geometry.layout;
        } catch (const error&) {  // contradicts the part, or is not supported
        }
        RW_EXPECTS(same, "the configuration: key '{}' ({}) outside {} disagrees with it: remove the one that is wrong",
                   shown_name(key), shown(value), path);
    }
}

}  // namespace detail

/// Returns the encoding of a model's configuration, a config.json of Hugging Face.
///
/// Reads `rope_scaling` and the newer `rope_parameters` (one layer type if they are nested) with every rope_type of
/// Transformers 5.24, `rope_theta`, `head_dim`, `partial_rotary_factor` and their other names. In a configuration of
/// several models, reads the language model. Keys that a configuration omits have the defaults of its model_type, from
/// model_table.hpp. A model_type that the table does not have is read as Llama's, and needs a key that names the
/// rotation.
///
/// Throws ropewalk::error, one line that names the key, for an unknown rope_type, a missing or unknown key, a value of
/// the wrong type, keys that contradict each other, keys that name a position encoding and are not supported, and
/// models or layers that rotate differently or not at all.
inline Encoding encoding_from_config(const nlohmann::json& config, const config_choices& choices = {}) {
    RW_EXPECTS(config.is_object(), "the configuration must be an object, got {}", config.type_name());
    const nlohmann::json* model = &config;
    std::string path = "the configuration";
    detail::model_code code(detail::stated_model_type(config));
    std::vector<const nlohmann::json*> around;
    for (std::string key; !(key = detail::language_model_key(*model, code)).empty();) {
        around.push_back(model);
        RW_EXPECTS(around.size() <= detail::max_nested_models,
                   "the configuration has more than {} models inside each other", detail::max_nested_models);
        model = &(*model)[key];
        path = key;
        code = code.language_model(detail::stated_model_type(*model));
    }
    code = code.flat_language_model();
    Encoding encoding = detail::read_model(*model, path, code, choices);
    for (const nlohmann::json* const whole : around) {
        detail::reject_keys_around(*whole, *model, path, code, choices, encoding);
    }
    return encoding;
}

/// The same for a file, or for the config.json in a folder.
inline Encoding encoding_from_config_file(const std::filesystem::path& path, const config_choices& choices = {}) {
    if (!is_folder(path)) return encoding_from_config(parse_config_file(path), choices);
    const std::filesystem::path file = path / "config.json";
    RW_EXPECTS(is_there(file), "{} is a folder without a config.json", path.string());
    return encoding_from_config(parse_config_file(file), choices);
}

}  // namespace ropewalk
