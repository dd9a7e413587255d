// Every `rope_type` of a configuration and the policy that it stands for.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ropewalk/io/config_section.hpp"
#include "ropewalk/io/model_defaults.hpp"
#include "ropewalk/policy/registry.hpp"

namespace ropewalk::detail {

/// What a scheme is read from.
struct scheme_source {
    config_section scheme;  ///< rope_scaling or rope_parameters, of one layer type where they are nested
    config_section model;   ///< all of the configuration
    std::string model_type;
    Geometry geometry;

    /// The stretched length.
    [[nodiscard]] std::optional<std::int64_t> max_length() const { return model.integer("max_position_embeddings"); }

    /// The length before: at the top level, which wins, or in the section, or else max_position_embeddings, as
    /// Transformers does.
    [[nodiscard]] std::int64_t original_length() const {
        auto length = model.integer("original_max_position_embeddings");
        if (!length) length = scheme.integer("original_max_position_embeddings");
        if (!length) length = max_length();
        RW_EXPECTS(length.has_value(), "{} lacks 'original_max_position_embeddings'", scheme.path());
        RW_EXPECTS(*length > 0, "{}: original_max_position_embeddings must be positive, got {}", scheme.path(),
                   *length);
        return *length;
    }
};

/// How one `rope_type` becomes a policy. Every key of its section that changes the encoding is read or refused; the
/// others that are known to occur are listed here or in common_keys, so that a misspelt one is noticed.
struct rope_scheme {
    std::string_view rope_type;
    std::string_view keys;  ///< besides common_keys, separated by blanks
    any_policy (*read)(const scheme_source& source);
};

/// Keys beside any scheme. `finetuned` says how the model was made; some models repeat `max_position_embeddings` in the
/// section; `llama_4_scaling_beta` belongs to the score, not to the rotation: see QueryTemperature.
inline constexpr std::string_view common_keys =
    "rope_type type rope_theta partial_rotary_factor mrope_section mrope_interleaved interleaved finetuned "
    "max_position_embeddings llama_4_scaling_beta";

inline any_policy read_default(const scheme_source& /*source*/) { return Default{}; }

inline any_policy read_linear(const scheme_source& source) {
    return Linear{.factor = source.scheme.required_number("factor")};
}

inline any_policy read_dynamic(const scheme_source& source) {
    const config_section& scheme = source.scheme;
    const double factor = scheme.number("factor").value_or(1);
    // HunYuan says "dynamic" but fixes alpha; its file repeats YaRN's parameters, which its code never reads.
    if (const double alpha = scheme.number("alpha").value_or(0); alpha != 0) {
        RW_EXPECTS(factor == 1, "{}: 'alpha' is {} but 'factor' is {}", scheme.path(), alpha, factor);
        return Ntk{.alpha = alpha};
    }
    for (const char* const key : {"beta_fast", "beta_slow", "mscale", "mscale_all_dim"}) {
        RW_EXPECTS(!scheme.has(key), "{}: key '{}' is not known for dynamic without 'alpha'", scheme.path(), key);
    }
    // Transformers stretches from max_position_embeddings and reads no other length.
    const std::int64_t original = source.original_length(), longest = source.max_length().value_or(original);
    RW_EXPECTS(
        original == longest,
        "{}: original_max_position_embeddings is {} but max_position_embeddings, from which dynamic starts, is {}",
        scheme.path(), original, longest);
    return DynamicNtk{.factor = scheme.required_number("factor"), .original_length = longest};
}

inline any_policy read_yarn(const scheme_source& source) {
    const config_section& scheme = source.scheme;
    Yarn yarn{.factor = scheme.required_number("factor"), .original_length = source.original_length()};
    yarn.beta_fast = scheme.number("beta_fast").value_or(yarn.beta_fast);
    yarn.beta_slow = scheme.number("beta_slow").value_or(yarn.beta_slow);
    yarn.truncate = scheme.flag("truncate").value_or(yarn.truncate);
    yarn.attention_factor_given = scheme.number("attention_factor");
    yarn.mscale = scheme.number("mscale");
    yarn.mscale_all_dim = scheme.number("mscale_all_dim");
    RW_EXPECTS(scheme.number("extrapolation_factor").value_or(1) == 1, "{}.extrapolation_factor must be 1, got {}",
               scheme.path(), scheme.number("extrapolation_factor").value_or(1));
    // The authors' own code multiplies its magnitude by attn_factor, which Transformers ignores.
    if (const double more = scheme.number("attn_factor").value_or(1); more != 1) {
        RW_EXPECTS(!yarn.attention_factor_given, "{} has both 'attention_factor' and 'attn_factor'", scheme.path());
        yarn.validate(source.geometry);
        yarn.attention_factor_given = yarn.attention_factor(source.geometry) * more;
    }
    // Others have both mscales but leave the softmax alone, Ministral among them.
    if (yarn.mscale_all_dim && !scales_softmax(source.model_type)) {
        yarn.validate(source.geometry);
        yarn.attention_factor_given = yarn.attention_factor(source.geometry);
        yarn.mscale = yarn.mscale_all_dim = {};
    }
    return yarn;
}

inline any_policy read_llama3(const scheme_source& source) {
    return Llama3{.factor = source.scheme.required_number("factor"),
                  .low_freq_factor = source.scheme.required_number("low_freq_factor"),
                  .high_freq_factor = source.scheme.required_number("high_freq_factor"),
                  .original_length = source.original_length()};
}

inline any_policy read_long_rope(const scheme_source& source) {
    const config_section& scheme = source.scheme;
    LongRope policy{.original_length = source.original_length()};
    policy.short_factor = scheme.required_numbers("short_factor", source.geometry.pairs());
    policy.long_factor = scheme.required_numbers("long_factor", source.geometry.pairs());
    policy.attention_factor_given = scheme.number("attention_factor");
    const auto factor = scheme.number("factor");
    const auto longest = source.max_length();
    // PhiMoE's magnitudes; the sequence length says which one holds.
    const bool is_long = source.geometry.sequence_length > policy.original_length;
    if (const auto magnitude = scheme.number(is_long ? "long_mscale" : "short_mscale")) {
        RW_EXPECTS(!policy.attention_factor_given || *policy.attention_factor_given == *magnitude,
                   "{}: attention_factor is {} but {} is {}", scheme.path(), *policy.attention_factor_given,
                   is_long ? "long_mscale" : "short_mscale", *magnitude);
        policy.attention_factor_given = magnitude;
    }
    RW_EXPECTS(factor || longest || policy.attention_factor_given,
               "{} lacks 'factor', and the configuration 'max_position_embeddings'", scheme.path());
    if (factor) {
        policy.factor = *factor;
    } else if (longest) {
        policy.factor = static_cast<double>(*longest) / static_cast<double>(policy.original_length);
    }
    return policy;
}

inline any_policy read_proportional(const scheme_source& source) {
    auto part = source.scheme.number("partial_rotary_factor");
    if (!part) part = source.model.number("partial_rotary_factor");
    return Proportional{.partial_rotary_factor = part.value_or(1),
                        .factor = source.scheme.number("factor").value_or(1)};
}

inline constexpr std::array rope_schemes{
    rope_scheme{"default", "", &read_default},
    rope_scheme{"linear", "factor", &read_linear},
    rope_scheme{"dynamic", "factor alpha original_max_position_embeddings beta_fast beta_slow mscale mscale_all_dim",
                &read_dynamic},
    rope_scheme{"yarn",
                "factor original_max_position_embeddings beta_fast beta_slow truncate attention_factor attn_factor "
                "extrapolation_factor mscale mscale_all_dim",
                &read_yarn},
    rope_scheme{"llama3", "factor low_freq_factor high_freq_factor original_max_position_embeddings", &read_llama3},
    rope_scheme{"longrope",
                "factor short_factor long_factor original_max_position_embeddings attention_factor short_mscale "
                "long_mscale",
                &read_long_rope},
    rope_scheme{"proportional", "factor", &read_proportional},
};

/// `su` was LongRoPE's name; `mrope` is plain RoPE with mrope_section.
inline std::string current_name(const std::string& rope_type) {
    return rope_type == "su" ? "longrope" : rope_type == "mrope" ? "default" : rope_type;
}

/// `type` is the old name of `rope_type`. A section with a factor but no type is no plain RoPE.
inline std::string rope_type_of(const config_section& scheme) {
    const auto now = scheme.text("rope_type"), old = scheme.text("type");
    RW_EXPECTS(!now || !old || current_name(*now) == current_name(*old), "{}: rope_type is '{}' but type is '{}'",
               scheme.path(), shown_name(now.value_or("")), shown_name(old.value_or("")));
    if (now || old) {
        const std::string& name = now ? *now : *old;
        RW_EXPECTS(name != "mrope" || scheme.has("mrope_section"), "{} lacks 'mrope_section'", scheme.path());
        return current_name(name);
    }
    RW_EXPECTS(!scheme.has("factor"), "{} has a factor but lacks 'rope_type'", scheme.path());
    return "default";
}

inline const rope_scheme& find_scheme(const config_section& scheme) {
    const std::string type = rope_type_of(scheme);
    std::string known;
    for (const rope_scheme& one : rope_schemes) {
        if (one.rope_type == type) return one;
        known += (known.empty() ? "" : ", ") + std::string(one.rope_type);
    }
    fail("{}: rope_type '{}' is not supported, known are {}", scheme.path(), shown_name(type), known);
}

inline bool has_word(std::string_view words, std::string_view word) {
    while (!words.empty()) {
        const auto end = words.find(' ');
        if (words.substr(0, end) == word) return true;
        words.remove_prefix(end == std::string_view::npos ? words.size() : end + 1);
    }
    return false;
}

/// Three positions a token, on top of any frequencies.
inline std::optional<MRope> read_mrope(const scheme_source& source) {
    RW_EXPECTS(!source.model_type.starts_with("ernie4_5_vl") && !source.model_type.starts_with("hunyuan_vl"),
               "{}.mrope_section: {} orders its pairs in a way of its own, which is not supported",
               source.scheme.path(), source.model_type);
    const auto interleaved = source.scheme.flag_of_any({"mrope_interleaved", "interleaved"});
    if (!source.scheme.has("mrope_section")) {
        RW_EXPECTS(!interleaved.value_or(false), "{} lacks 'mrope_section'", source.scheme.path());
        return {};
    }
    MRope mrope{.sections = source.scheme.required_integers("mrope_section", std::int64_t{position_axes})};
    mrope.interleaved = interleaved.value_or(interleaves_sections(source.model_type));
    return mrope;
}

/// The policies of one section.
inline std::vector<any_policy> policies_of_scheme(const scheme_source& source) {
    const rope_scheme& scheme = find_scheme(source.scheme);
    source.scheme.expect_only(
        [&](std::string_view key) { return has_word(common_keys, key) || has_word(scheme.keys, key); },
        scheme.rope_type);
    std::vector<any_policy> policies;
    const any_policy frequencies = scheme.read(source);
    if (!std::holds_alternative<Default>(frequencies)) policies.push_back(frequencies);
    if (const auto mrope = read_mrope(source)) policies.emplace_back(*mrope);
    return policies;
}

}  // namespace ropewalk::detail
