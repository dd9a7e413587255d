// Conversion of every `rope_type` of a configuration to a policy.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "ropewalk/io/config_section.hpp"
#include "ropewalk/io/model_code.hpp"
#include "ropewalk/policy/registry.hpp"

namespace ropewalk::detail {

/// The input of a conversion.
struct rope_source {
    config_section section;   ///< rope_scaling or rope_parameters, of one layer type if they are nested
    config_section model;     ///< the whole configuration
    config_section defaults;  ///< of the model's code
    const model_code& code;
    Geometry geometry;

    /// Returns the extended context length, if stated.
    [[nodiscard]] std::optional<std::int64_t> max_length() const {
        const auto length = model.integer("max_position_embeddings");
        return length ? length : defaults.integer("max_position_embeddings");
    }

    /// Returns the trained context length. As in Transformers, that of the model takes precedence over that of the
    /// section, and max_position_embeddings is the default.
    [[nodiscard]] std::int64_t original_length() const {
        const char* const key = "original_max_position_embeddings";
        auto length = model.integer(key);
        if (!length) length = defaults.integer(key);
        if (!length) length = section.integer(key);
        if (!length) length = max_length();
        RW_EXPECTS(length.has_value(), "{} lacks 'original_max_position_embeddings'", section.path());
        RW_EXPECTS(*length > 0, "{}: original_max_position_embeddings must be positive, got {}", section.path(),
                   *length);
        return *length;
    }
};

/// One `rope_type`: its keys and its conversion. Every key that changes the encoding is read or rejected. Other known
/// keys are listed here or in common_keys, so that a misspelt key is an error.
struct rope_type {
    std::string_view name;
    std::string_view keys;  ///< in addition to common_keys, separated by blanks
    any_policy (*read)(const rope_source& source);
};

/// Keys that any section may have. `finetuned` has no effect, some models repeat `max_position_embeddings` in the
/// section, and `llama_4_scaling_beta` affects the score, not the rotation (see QueryTemperature).
inline constexpr std::string_view common_keys =
    "rope_type type rope_theta partial_rotary_factor mrope_section mrope_interleaved interleaved finetuned "
    "max_position_embeddings llama_4_scaling_beta";

/// Throws unless a key that this scaling method does not use is absent or has the value without effect.
inline void expect_neutral(const config_section& section, const char* key, std::string_view name) {
    const double value = section.number(key).value_or(1);
    RW_EXPECTS(value == 1, "{}: {} has no effect for {} and must be 1, got {}", section.path(), key, name, value);
}

inline any_policy read_default(const rope_source& source) {
    expect_neutral(source.section, "factor", "default");
    return Default{};
}

/// NTK-aware scaling with a fixed factor of the last pair, under either name.
inline any_policy read_ntk(const rope_source& source) {
    const auto alpha = source.section.number_of_any({"factor", "alpha"});
    RW_EXPECTS(alpha.has_value(), "{} lacks 'factor'", source.section.path());
    return Ntk{.alpha = *alpha};
}

inline any_policy read_linear(const rope_source& source) {
    return Linear{.factor = source.section.required_number("factor")};
}

inline any_policy read_dynamic(const rope_source& source) {
    const config_section& section = source.section;
    const double factor = section.number("factor").value_or(1);
    // HunYuan's "dynamic" has a fixed alpha. Its file repeats parameters of YaRN, which its code never reads.
    if (const double alpha = section.number("alpha").value_or(0); alpha != 0) {
        RW_EXPECTS(factor == 1, "{}: 'alpha' is {} but 'factor' is {}", section.path(), alpha, factor);
        return Ntk{.alpha = alpha};
    }
    for (const char* const key : {"beta_fast", "beta_slow", "mscale", "mscale_all_dim"}) {
        RW_EXPECTS(!section.has(key), "{}: key '{}' is not known for dynamic without 'alpha'", section.path(), key);
    }
    // Transformers scales from max_position_embeddings and reads no other length.
    const std::int64_t original = source.original_length(), longest = source.max_length().value_or(original);
    RW_EXPECTS(
        original == longest,
        "{}: original_max_position_embeddings is {} but max_position_embeddings, which dynamic scales from, is {}",
        section.path(), original, longest);
    return DynamicNtk{.factor = section.required_number("factor"), .original_length = longest};
}

inline any_policy read_yarn(const rope_source& source) {
    const config_section& section = source.section;
    Yarn yarn{.factor = section.required_number("factor"), .original_length = source.original_length()};
    yarn.beta_fast = section.number("beta_fast").value_or(yarn.beta_fast);
    yarn.beta_slow = section.number("beta_slow").value_or(yarn.beta_slow);
    yarn.truncate = section.flag("truncate").value_or(yarn.truncate);
    yarn.attention_factor_given = section.number("attention_factor");
    yarn.mscale = section.number("mscale");
    yarn.mscale_all_dim = section.number("mscale_all_dim");
    RW_EXPECTS(section.number("extrapolation_factor").value_or(1) == 1, "{}.extrapolation_factor must be 1, got {}",
               section.path(), section.number("extrapolation_factor").value_or(1));
    // The authors' code multiplies the attention factor by attn_factor, which Transformers ignores.
    if (const double relative = section.number("attn_factor").value_or(1); relative != 1) {
        RW_EXPECTS(!yarn.attention_factor_given, "{} has both 'attention_factor' and 'attn_factor'", section.path());
        yarn.validate(source.geometry);
        yarn.attention_factor_given = yarn.attention_factor(source.geometry) * relative;
    }
    RW_EXPECTS(!yarn.mscale_all_dim || source.code.is_known() || source.code.model_type.empty(),
               "{}: the softmax factor of mscale_all_dim is not known for model_type '{}'", section.path(),
               shown_name(source.code.model_type));
    // Other models, such as Ministral, have both mscales without a factor on the softmax.
    if (yarn.mscale_all_dim && !source.code.scales_softmax()) {
        yarn.validate(source.geometry);
        yarn.attention_factor_given = yarn.attention_factor(source.geometry);
        yarn.mscale = yarn.mscale_all_dim = {};
    }
    return yarn;
}

inline any_policy read_llama3(const rope_source& source) {
    expect_neutral(source.section, "attention_factor", "llama3");
    return Llama3{.factor = source.section.required_number("factor"),
                  .low_freq_factor = source.section.required_number("low_freq_factor"),
                  .high_freq_factor = source.section.required_number("high_freq_factor"),
                  .original_length = source.original_length()};
}

inline any_policy read_long_rope(const rope_source& source) {
    const config_section& section = source.section;
    LongRope policy{.original_length = source.original_length()};
    policy.short_factor = section.required_numbers("short_factor", source.geometry.pairs());
    policy.long_factor = section.required_numbers("long_factor", source.geometry.pairs());
    policy.attention_factor_given = section.number("attention_factor");
    const auto factor = section.number("factor");
    const auto longest = source.max_length();
    // PhiMoE has one attention factor per list.
    const bool is_long = source.geometry.sequence_length > policy.original_length;
    if (const auto magnitude = section.number(is_long ? "long_mscale" : "short_mscale")) {
        RW_EXPECTS(!policy.attention_factor_given || *policy.attention_factor_given == *magnitude,
                   "{}: attention_factor is {} but {} is {}", section.path(), *policy.attention_factor_given,
                   is_long ? "long_mscale" : "short_mscale", *magnitude);
        policy.attention_factor_given = magnitude;
    }
    RW_EXPECTS(factor || longest || policy.attention_factor_given,
               "{} lacks 'factor', and the configuration 'max_position_embeddings'", section.path());
    if (factor) {
        policy.factor = *factor;
    } else if (longest) {
        policy.factor = static_cast<double>(*longest) / static_cast<double>(policy.original_length);
    }
    return policy;
}

inline any_policy read_proportional(const rope_source& source) {
    auto part = source.section.number("partial_rotary_factor");
    if (!part) part = source.model.number("partial_rotary_factor");
    return Proportional{.partial_rotary_factor = part.value_or(1),
                        .factor = source.section.number("factor").value_or(1)};
}

inline constexpr std::array rope_types{
    rope_type{"default", "factor original_max_position_embeddings", &read_default},
    rope_type{"linear", "factor original_max_position_embeddings", &read_linear},
    rope_type{"ntk", "factor alpha original_max_position_embeddings", &read_ntk},
    rope_type{"dynamic", "factor alpha original_max_position_embeddings beta_fast beta_slow mscale mscale_all_dim",
              &read_dynamic},
    rope_type{"yarn",
              "factor original_max_position_embeddings beta_fast beta_slow truncate attention_factor attn_factor "
              "extrapolation_factor mscale mscale_all_dim",
              &read_yarn},
    rope_type{"llama3", "factor low_freq_factor high_freq_factor original_max_position_embeddings attention_factor",
              &read_llama3},
    rope_type{"longrope",
              "factor short_factor long_factor original_max_position_embeddings attention_factor short_mscale "
              "long_mscale",
              &read_long_rope},
    rope_type{"proportional", "factor", &read_proportional},
};

/// Returns the scaling of an `attn_config` with `rope`: MPT in its authors' code, which selects one of two sections.
inline std::vector<any_policy> read_attention_config(const config_section& attention) {
    const bool like_llama = attention.text("rope_impl").value_or("dail") == "hf";
    const auto dail = attention.section("rope_dail_config"), hf = attention.section("rope_hf_config");
    const auto& used = like_llama ? hf : dail;
    const std::string plain = like_llama ? "no_scaling" : "original";
    const std::string type = used ? used->text("type").value_or(plain) : plain;
    if (type == plain) return {};
    RW_EXPECTS(like_llama && type == "linear", "{}: type '{}' is not supported, expected '{}' or 'linear'",
               used->path(), shown_name(type), plain);
    return {Linear{.factor = used->required_number("factor")}};
}

/// Returns the current name: `su` was LongRoPE, `mrope` is plain RoPE with mrope_section.
inline std::string current_name(const std::string& name) {
    return name == "su" ? "longrope" : name == "mrope" ? "default" : name;
}

/// Returns the rope_type of a section, whose older key is `type`. A section with a factor but no type is an error.
inline std::string rope_type_of(const config_section& section) {
    const auto now = section.text("rope_type"), old = section.text("type");
    RW_EXPECTS(!now || !old || current_name(*now) == current_name(*old), "{}: rope_type is '{}' but type is '{}'",
               section.path(), shown_name(now.value_or("")), shown_name(old.value_or("")));
    if (now || old) {
        const std::string& name = now ? *now : *old;
        RW_EXPECTS(name != "mrope" || section.has("mrope_section"), "{} lacks 'mrope_section'", section.path());
        return current_name(name);
    }
    RW_EXPECTS(!section.has("factor"), "{} has a factor but lacks 'rope_type'", section.path());
    return "default";
}

/// Returns the entry of rope_types for a section. Throws, with a suggestion, for an unknown name.
inline const rope_type& find_rope_type(const config_section& section) {
    const std::string name = rope_type_of(section);
    std::array<std::string_view, rope_types.size()> names{};
    for (std::size_t i = 0; i < rope_types.size(); ++i) {
        if (rope_types[i].name == name) return rope_types[i];
        names[i] = rope_types[i].name;
    }
    fail("{}: rope_type '{}' is not supported{}", section.path(), shown_name(name), name_hint(name, names));
}

/// Appends the words of a text, which blanks separate.
inline void append_words(std::vector<std::string_view>& words, std::string_view text) {
    while (!text.empty()) {
        const auto end = std::min(text.find(' '), text.size());
        words.push_back(text.substr(0, end));
        text.remove_prefix(std::min(end + 1, text.size()));
    }
}

/// Returns the policy of mrope_section, which any rope_type may have. The code of some models has sections of its own.
inline std::optional<MRope> read_mrope(const rope_source& source) {
    const bool stated = source.section.has("mrope_section");
    auto interleaved = source.section.flag_of_any({"mrope_interleaved", "interleaved"});
    const config_section& from = stated ? source.section : source.defaults;
    if (!from.has("mrope_section")) {
        RW_EXPECTS(!interleaved.value_or(false), "{} lacks 'mrope_section'", source.section.path());
        return {};
    }
    if (!interleaved) interleaved = source.defaults.flag("mrope_interleaved");
    MRope mrope{.sections = from.required_integers("mrope_section", std::int64_t{position_axes})};
    mrope.interleaved = interleaved.value_or(false);
    if (mrope.interleaved) {
        // Model code leaves the pairs after the sections to the first axis. Its own sections can be too long for a
        // head.
        if (!stated && source.geometry.pairs() < mrope.sections[0] + mrope.sections[1] + mrope.sections[2]) {
            for (const std::size_t axis : {1U, 2U}) {
                const std::int64_t most = (source.geometry.pairs() + 2 - static_cast<std::int64_t>(axis)) / 3;
                mrope.sections[axis] = std::min(mrope.sections[axis], most);
            }
            mrope.sections[0] = 0;
        }
        std::int64_t rest = source.geometry.pairs();
        for (const std::int64_t section : mrope.sections) rest -= std::clamp<std::int64_t>(section, 0, rest);
        mrope.sections.front() += rest;
    }
    return mrope;
}

/// Returns the policies of GTE's `ntk`. Its code multiplies the base by the factor s and divides every frequency by
/// s^(2/d), so that the first pair is scaled too.
inline std::vector<any_policy> gte_policies(double factor, const Geometry& geometry) {
    const auto d = static_cast<double>(geometry.width());
    return {Ntk{.alpha = std::pow(factor, (d - 2) / d)}, Linear{.factor = std::pow(factor, 2 / d)}};
}

/// Returns the policies of one section.
inline std::vector<any_policy> policies_of_section(const rope_source& source) {
    const rope_type& type = find_rope_type(source.section);
    std::vector<std::string_view> known;
    append_words(known, common_keys);
    append_words(known, type.keys);
    source.section.expect_only(known, type.name);
    std::vector<any_policy> policies;
    const any_policy frequencies = type.read(source);
    const bool is_gte = source.code.model_type == "new" || source.code.model_type == "gte";
    if (is_gte && type.name == "ntk") {
        policies = gte_policies(std::get<Ntk>(frequencies).alpha, source.geometry);
    } else if (!std::holds_alternative<Default>(frequencies)) {
        policies.push_back(frequencies);
    }
    if (const auto mrope = read_mrope(source)) policies.emplace_back(*mrope);
    return policies;
}

}  // namespace ropewalk::detail
