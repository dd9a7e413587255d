// Conversion of policies to the rope section of a configuration.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "ropewalk/encoding.hpp"

namespace ropewalk::detail {

/// The original length of a longrope section with two equal lists, where it has no effect. Readers need a length above
/// 1, and some build a table of that length.
inline constexpr std::int64_t unused_length = 4096;

/// The factor θ_j/θ'_j for θ'_j = 0. It stays finite in float32 after multiplication by a base of 10^8, and the angle
/// rounds to 0 at every 64-bit position.
inline constexpr double zero_frequency_factor = 1e30;

/// The policies of an encoding, without plain RoPE and with M-RoPE apart.
struct written_policies {
    std::vector<any_policy> frequencies;
    std::optional<MRope> mrope;
};

inline written_policies split_policies(const Encoding& encoding) {
    RW_EXPECTS(!encoding.has_magnitude(),
               "'{}' has magnitudes that depend on the position, which a configuration cannot express",
               encoding.expression);
    RW_EXPECTS(!encoding.draw_positions, "'{}' draws positions for training, which a configuration cannot express",
               encoding.expression);
    written_policies parts;
    for (const any_policy& policy : parse_policies(encoding.expression)) {
        if (const auto* const mrope = std::get_if<MRope>(&policy)) {
            parts.mrope = *mrope;
        } else if (!std::holds_alternative<Default>(policy)) {
            parts.frequencies.push_back(policy);
        }
    }
    return parts;
}

inline nlohmann::json yarn_section(const Yarn& yarn) {
    nlohmann::json section{{"rope_type", "yarn"},
                           {"factor", yarn.factor},
                           {"original_max_position_embeddings", yarn.original_length},
                           {"beta_fast", yarn.beta_fast},
                           {"beta_slow", yarn.beta_slow}};
    if (!yarn.truncate) section["truncate"] = false;
    if (yarn.attention_factor_given) section["attention_factor"] = *yarn.attention_factor_given;
    if (yarn.mscale) section["mscale"] = *yarn.mscale;
    if (yarn.mscale_all_dim) section["mscale_all_dim"] = *yarn.mscale_all_dim;
    return section;
}

inline nlohmann::json long_rope_section(const LongRope& policy, std::int64_t pairs) {
    const std::vector<double> ones(static_cast<std::size_t>(pairs), 1.0);
    nlohmann::json section{{"rope_type", "longrope"},
                           {"short_factor", policy.short_factor.empty() ? ones : policy.short_factor},
                           {"long_factor", policy.long_factor.empty() ? ones : policy.long_factor},
                           {"factor", policy.factor},
                           {"original_max_position_embeddings", policy.original_length}};
    if (policy.attention_factor_given) section["attention_factor"] = *policy.attention_factor_given;
    return section;
}

/// The section of a policy with its own rope_type, or nothing.
struct native_section {
    std::int64_t pairs;

    using result = std::optional<nlohmann::json>;
    result operator()(const Linear& policy) const {
        return nlohmann::json{{"rope_type", "linear"}, {"factor", policy.factor}};
    }
    result operator()(const DynamicNtk& policy) const {
        return nlohmann::json{{"rope_type", "dynamic"}, {"factor", policy.factor}};
    }
    result operator()(const Yarn& policy) const {
        if (policy.original_length == 0) return {};
        return yarn_section(policy);
    }
    result operator()(const Llama3& policy) const {
        return nlohmann::json{{"rope_type", "llama3"},
                              {"factor", policy.factor},
                              {"low_freq_factor", policy.low_freq_factor},
                              {"high_freq_factor", policy.high_freq_factor},
                              {"original_max_position_embeddings", policy.original_length}};
    }
    result operator()(const LongRope& policy) const {
        if (policy.original_length < 2) return {};
        return long_rope_section(policy, pairs);
    }
    result operator()(const Proportional& policy) const {
        return nlohmann::json{{"rope_type", "proportional"},
                              {"partial_rotary_factor", policy.partial_rotary_factor},
                              {"factor", policy.factor}};
    }
    template <class P>
    result operator()(const P& /*policy*/) const {
        return {};
    }
};

/// Returns a longrope section for policies without their own rope_type: the factors θ_j/θ'_j in both lists.
inline nlohmann::json listed_section(const Encoding& encoding, const std::vector<any_policy>& policies) {
    for (const any_policy& policy : policies) {
        const bool follows_length = std::visit([]<class P>(const P&) { return StagePolicy<P>; }, policy);
        RW_EXPECTS(
            !follows_length || policies.size() == 1,
            "'{}' depends on the sequence length, which a list of factors cannot express: 'dynamic' and 'longrope' "
            "can be written only without other policies",
            encoding.expression);
    }
    RW_EXPECTS(encoding.softmax_factor == 1,
               "'{}' has a softmax factor of {}, which can be written only for yarn without other policies",
               encoding.expression, encoding.softmax_factor);
    const std::int64_t length = encoding.geometry.sequence_length;
    LongRope list{.original_length = length > 1 ? length : unused_length,
                  .attention_factor_given = encoding.attention_factor};
    for (std::int64_t pair = 0; pair < encoding.pairs(); ++pair) {
        const double scaled = encoding.inv_freq[static_cast<std::size_t>(pair)];
        const real plain = encoding.geometry.theta(pair);
        const double factor = scaled == 0 ? zero_frequency_factor : static_cast<double>(plain / real(scaled));
        list.short_factor.push_back(factor < zero_frequency_factor ? factor : zero_frequency_factor);
    }
    list.long_factor = list.short_factor;
    return long_rope_section(list, encoding.pairs());
}

/// Returns the section with `rope_type` (not the older `type`), without rope_theta and widths.
inline nlohmann::json section_of(const Encoding& encoding, const written_policies& parts) {
    nlohmann::json section{{"rope_type", "default"}};
    if (!parts.frequencies.empty()) {
        std::optional<nlohmann::json> native;
        if (parts.frequencies.size() == 1) {
            native = std::visit(native_section{encoding.pairs()}, parts.frequencies.front());
        }
        section = native ? *native : listed_section(encoding, parts.frequencies);
    }
    if (parts.mrope) {
        section["mrope_section"] = parts.mrope->sections;
        section["mrope_interleaved"] = parts.mrope->interleaved;
    }
    return section;
}

}  // namespace ropewalk::detail
