// What goes behind vLLM's --hf-overrides and on llama.cpp's command line.
#pragma once

#include <cmath>
#include <string>
#include <variant>

#include <nlohmann/json.hpp>

#include "ropewalk/io/rope_section.hpp"

namespace ropewalk::detail {

/// The YaRN magnitude that both peers start from, 0.1·ln(factor) + 1.
inline double usual_magnitude(const Yarn& yarn, const Geometry& geometry) {
    return Yarn{.factor = yarn.factor, .original_length = yarn.original_length}.attention_factor(geometry);
}

/// vLLM reads rope_parameters, but its YaRN knows no attention_factor, only attn_factor, which multiplies the usual
/// magnitude, and its longrope only short_mscale and long_mscale.
inline nlohmann::json vllm_overrides(const Encoding& encoding, const written_policies& parts,
                                     const nlohmann::json& parameters) {
    nlohmann::json section = parameters;
    if (section["rope_type"] == "longrope") {
        section["short_mscale"] = section["long_mscale"] = encoding.attention_factor;
    }
    if (section["rope_type"] == "yarn" && section.contains("attention_factor")) {
        const auto& yarn = std::get<Yarn>(parts.frequencies.front());
        section["attn_factor"] = encoding.attention_factor / usual_magnitude(yarn, encoding.geometry);
    }
    return {{"rope_parameters", section}};
}

/// Flags, or the reason why there are none.
struct peer_flags {
    std::string flags{}, reason{};
};

/// The frequencies of one policy in llama.cpp's flags, all but the base. llama.cpp's YaRN rounds its bounds to pairs
/// and multiplies cos and sin by attn_factor · (1 + 0.1·ln(scale)).
struct llama_cpp_scaling {
    const Encoding& encoding;

    peer_flags operator()(const Linear& policy) const {
        return {format("--rope-scaling linear --rope-scale {}", policy.factor)};
    }
    /// Another base and no scaling.
    peer_flags operator()(const Ntk& /*policy*/) const { return {"--rope-scaling none"}; }
    peer_flags operator()(const Yarn& policy) const {
        if (!policy.truncate) return {"", "llama.cpp always rounds the bounds of YaRN's ramp, truncate is false here"};
        if (policy.original_length == 0) return {"", "llama.cpp's YaRN needs an original length"};
        peer_flags made{
            format("--rope-scaling yarn --rope-scale {} --yarn-orig-ctx {}", policy.factor, policy.original_length)};
        if (policy.beta_fast != 32) made.flags += format(" --yarn-beta-fast {}", policy.beta_fast);
        if (policy.beta_slow != 1) made.flags += format(" --yarn-beta-slow {}", policy.beta_slow);
        const double more = encoding.attention_factor / usual_magnitude(policy, encoding.geometry);
        if (more != 1) made.flags += format(" --yarn-attn-factor {}", more);
        return made;
    }
    peer_flags operator()(const DynamicNtk& /*policy*/) const {
        return {"", "llama.cpp cannot follow the sequence length as 'dynamic' does"};
    }
    template <class P>
    peer_flags operator()(const P& /*policy*/) const {
        return {"", format("llama.cpp has no flags for '{}': convert_hf_to_gguf.py writes its factors into the GGUF "
                           "file, from the rope_scaling here",
                           P::name)};
    }
};

inline peer_flags llama_cpp_flags(const Encoding& encoding, const written_policies& parts) {
    if (parts.frequencies.size() > 1) {
        return {"", format("llama.cpp has no flags for several policies in a row, '{}'", encoding.expression)};
    }
    peer_flags made{"--rope-scaling none"};
    double base = encoding.geometry.base;
    if (!parts.frequencies.empty()) {
        const any_policy& policy = parts.frequencies.front();
        made = std::visit(llama_cpp_scaling{encoding}, policy);
        if (const auto* const ntk = std::get_if<Ntk>(&policy); ntk != nullptr && encoding.geometry.width() > 2) {
            const double d = static_cast<double>(encoding.geometry.width());
            base *= std::pow(ntk->alpha, d / (d - 2));
        }
    }
    if (!made.flags.empty()) made.flags += format(" --rope-freq-base {}", base);
    return made;
}

}  // namespace ropewalk::detail
