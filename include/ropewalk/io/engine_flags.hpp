// Command-line flags of llama.cpp and --hf-overrides of vLLM for an encoding.
#pragma once

#include <cmath>
#include <string>
#include <variant>

#include <nlohmann/json.hpp>

#include "ropewalk/io/write_section.hpp"

namespace ropewalk::detail {

/// Returns the default attention factor of YaRN, 0.1·ln(factor) + 1, which both engines apply.
inline double default_attention_factor(const Yarn& yarn, const Geometry& geometry) {
    return Yarn{.factor = yarn.factor, .original_length = yarn.original_length}.attention_factor(geometry);
}

/// Returns the overrides of vLLM: rope_parameters with its own names of the attention factor. Its YaRN reads
/// attn_factor, relative to the default, and its longrope short_mscale and long_mscale.
inline nlohmann::json vllm_overrides(const Encoding& encoding, const written_policies& parts,
                                     const nlohmann::json& parameters) {
    nlohmann::json section = parameters;
    if (section["rope_type"] == "longrope") {
        section["short_mscale"] = section["long_mscale"] = encoding.attention_factor;
    }
    if (section["rope_type"] == "yarn" && section.contains("attention_factor")) {
        const auto& yarn = std::get<Yarn>(parts.frequencies.front());
        section["attn_factor"] = encoding.attention_factor / default_attention_factor(yarn, encoding.geometry);
    }
    return {{"rope_parameters", section}};
}

/// Flags of llama.cpp, or the reason for their absence.
struct engine_flags {
    std::string flags{}, reason{};
};

/// Flags of llama.cpp for the frequencies of one policy, except the base. Its YaRN rounds the bounds of the ramp to
/// pairs and multiplies cos and sin by attn_factor · (1 + 0.1·ln(scale)).
struct llama_cpp_scaling {
    const Encoding& encoding;

    engine_flags operator()(const Linear& policy) const {
        return {detail::format("--rope-scaling linear --rope-scale {}", policy.factor)};
    }
    /// The base alone expresses it.
    engine_flags operator()(const Ntk& /*policy*/) const { return {"--rope-scaling none"}; }
    engine_flags operator()(const Yarn& policy) const {
        if (!policy.truncate) return {"", "llama.cpp always rounds the bounds of YaRN's ramp, but truncate is false"};
        if (policy.original_length == 0) return {"", "YaRN in llama.cpp needs an original length"};
        engine_flags result{detail::format("--rope-scaling yarn --rope-scale {} --yarn-orig-ctx {}", policy.factor,
                                           policy.original_length)};
        if (policy.beta_fast != 32) result.flags += detail::format(" --yarn-beta-fast {}", policy.beta_fast);
        if (policy.beta_slow != 1) result.flags += detail::format(" --yarn-beta-slow {}", policy.beta_slow);
        const double relative = encoding.attention_factor / default_attention_factor(policy, encoding.geometry);
        if (relative != 1) result.flags += detail::format(" --yarn-attn-factor {}", relative);
        return result;
    }
    engine_flags operator()(const DynamicNtk& /*policy*/) const {
        return {"", "llama.cpp cannot follow the sequence length as 'dynamic' does"};
    }
    template <class P>
    engine_flags operator()(const P& /*policy*/) const {
        return {"", detail::format(
                        "llama.cpp has no flags for '{}': convert_hf_to_gguf.py writes its factors into the GGUF "
                        "file, from this rope_scaling",
                        P::name)};
    }
};

inline engine_flags llama_cpp_flags(const Encoding& encoding, const written_policies& parts) {
    if (parts.frequencies.size() > 1) {
        return {"", detail::format("llama.cpp has no flags for a composition of policies, '{}'", encoding.expression)};
    }
    engine_flags result{"--rope-scaling none"};
    double base = encoding.geometry.base;
    if (!parts.frequencies.empty()) {
        const any_policy& policy = parts.frequencies.front();
        result = std::visit(llama_cpp_scaling{encoding}, policy);
        if (const auto* const ntk = std::get_if<Ntk>(&policy); ntk != nullptr && encoding.geometry.width() > 2) {
            const double d = static_cast<double>(encoding.geometry.width());
            base *= std::pow(ntk->alpha, d / (d - 2));
        }
    }
    if (!result.flags.empty()) result.flags += detail::format(" --rope-freq-base {}", base);
    return result;
}

}  // namespace ropewalk::detail
