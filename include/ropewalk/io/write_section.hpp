// The way back: the section of a configuration that stands for policies.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "ropewalk/encoding.hpp"

namespace ropewalk::detail {

/// A length that is not used: both lists of a longrope section are the same, but readers want a length above 1, and
/// some keep a table of that many rows.
inline constexpr std::int64_t unused_length = 4096;

/// θ_j/θ'_j where θ'_j is 0: finite in float32 after the product with a base of 10^8, and an angle that rounds to 0 at
/// every position that fits into 64 bits.
inline constexpr double standstill = 1e30;

/// What the policies of an encoding amount to, besides M-RoPE.
struct written_policies {
    std::vector<any_policy> frequencies;
    std::optional<MRope> mrope;
};

inline written_policies take_apart(const Encoding& encoding) {
    RW_EXPECTS(!encoding.has_magnitude(),
               "'{}' changes magnitudes with the position: a configuration has no form for it", encoding.expression);
    RW_EXPECTS(!encoding.draw_positions, "'{}' draws positions, for training: a configuration has no form for it",
               encoding.expression);
    written_policies parts;
    for (const any_policy& one : parse_policies(encoding.expression)) {
        if (const auto* const mrope = std::get_if<MRope>(&one)) {
            if (!mrope->sections.empty()) parts.mrope = *mrope;
        } else if (!std::holds_alternative<Default>(one)) {
            parts.frequencies.push_back(one);
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

/// The section of a policy that has a rope_type of its own, or nothing.
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

/// Whatever has no rope_type of its own, as longrope: ext_j = θ_j/θ'_j in both lists.
inline nlohmann::json listed_section(const Encoding& encoding, const std::vector<any_policy>& policies) {
    for (const any_policy& one : policies) {
        const bool follows_length =
            std::visit([](const auto& p) { return StagePolicy<std::remove_cvref_t<decltype(p)>>; }, one);
        RW_EXPECTS(!follows_length || policies.size() == 1,
                   "'{}' follows the sequence length, which a list of factors cannot: only 'dynamic' and 'longrope' "
                   "alone can be written",
                   encoding.expression);
    }
    RW_EXPECTS(encoding.softmax_factor == 1, "'{}' has a softmax factor of {}, which only yarn alone can say",
               encoding.expression, encoding.softmax_factor);
    const std::int64_t length = encoding.geometry.sequence_length;
    LongRope list{.original_length = length > 1 ? length : unused_length,
                  .attention_factor_given = encoding.attention_factor};
    for (std::int64_t pair = 0; pair < encoding.pairs(); ++pair) {
        const double turned = encoding.inv_freq[static_cast<std::size_t>(pair)];
        const real plain = encoding.geometry.theta(pair);
        const double factor = turned == 0 ? standstill : static_cast<double>(plain / real(turned));
        list.short_factor.push_back(factor < standstill ? factor : standstill);
    }
    list.long_factor = list.short_factor;
    return long_rope_section(list, encoding.pairs());
}

/// The section, in today's spelling, without rope_theta and widths.
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
