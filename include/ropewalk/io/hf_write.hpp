// Writer of encodings as keys of a Hugging Face config.json and as options of engines. Optional: needs nlohmann/json.
#pragma once

#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include <nlohmann/json.hpp>

#include "ropewalk/encoding.hpp"
#include "ropewalk/io/engine_flags.hpp"
#include "ropewalk/io/write_section.hpp"

namespace ropewalk {

namespace detail {

/// Returns the partial_rotary_factor whose product with head_dim truncates to the width.
inline double partial_factor(const Geometry& geometry) {
    const auto head = static_cast<double>(geometry.head_dim), width = static_cast<double>(geometry.width());
    double part = width / head;
    while (std::floor(head * part) < width) part = std::nextafter(part, 2.0);
    return part;
}

/// Returns the length from which `dynamic` scales, if that is the policy.
inline std::optional<std::int64_t> dynamic_original_length(const written_policies& parts) {
    if (parts.frequencies.empty()) return {};
    const auto* const dynamic = std::get_if<DynamicNtk>(&parts.frequencies.front());
    return dynamic == nullptr ? std::nullopt : std::optional(dynamic->original_length);
}

inline constexpr const char* original_length_key = "original_max_position_embeddings";

/// The rope section of an encoding and its policies, after the checks of to_hf_config().
struct written_encoding {
    written_policies parts;
    nlohmann::json section;  ///< rope_parameters, without rope_theta

    explicit written_encoding(const Encoding& encoding) {
        const Geometry& geometry = encoding.geometry;
        RW_EXPECTS(geometry.rotary_offset == 0,
                   "a configuration cannot express a rotary part that starts at element {}", geometry.rotary_offset);
        parts = split_policies(encoding);
        section = section_of(encoding, parts);
        RW_EXPECTS(geometry.width() == geometry.head_dim || section["rope_type"] != "proportional",
                   "proportional needs the whole head of {} elements as its rotary part, got {}", geometry.head_dim,
                   geometry.width());
    }

    /// Returns rope_parameters.
    [[nodiscard]] nlohmann::json parameters(const Geometry& geometry) const {
        nlohmann::json whole = section;
        whole["rope_theta"] = geometry.base;
        if (geometry.width() != geometry.head_dim) whole["partial_rotary_factor"] = partial_factor(geometry);
        return whole;
    }

    /// Adds the keys for lengths outside of rope_parameters.
    void add_lengths(nlohmann::json& config) const {
        if (const auto original = dynamic_original_length(parts)) config["max_position_embeddings"] = *original;
        if (section.contains(original_length_key)) config[original_length_key] = section[original_length_key];
    }
};

}  // namespace detail

/// Returns the keys that give a model this encoding, to be merged into its config.json (into text_config if it has
/// one). encoding_from_config() reads them back. All of them are keys of Hugging Face.
///
/// - `rope_parameters` and the older `rope_scaling` with the same content (null for plain RoPE);
/// - `rope_theta`, `head_dim` and `partial_rotary_factor` (1 for the whole head; absent for proportional, which has its
///   own);
/// - if they differ from the default: `rope_interleave`; `max_position_embeddings`, the length from which `dynamic`
///   scales; `original_max_position_embeddings`, because a value that the model has at this level would take
///   precedence.
///
/// linear, dynamic, yarn, llama3, longrope, proportional and mrope have their own rope_type. Power, truncated, ntk and
/// compositions are written as `longrope` with the factors θ_j/θ'_j in both lists; a pair with frequency 0 has the
/// factor 1e30. Throws ropewalk::error for encodings that a configuration cannot express: xpos, randomized positions, a
/// rotary part that does not start the head, `dynamic` or `longrope` in a composition.
inline nlohmann::json to_hf_config(const Encoding& encoding) {
    const Geometry& geometry = encoding.geometry;
    const detail::written_encoding written(encoding);
    const bool plain = written.section.size() == 1 && written.section["rope_type"] == "default";
    nlohmann::json config{{"head_dim", geometry.head_dim}, {"rope_theta", geometry.base}, {"rope_scaling", nullptr}};
    if (!plain) {
        nlohmann::json old = written.section;
        old["type"] = old["rope_type"];
        old.erase("rope_type");
        config["rope_scaling"] = std::move(old);
    }
    config["rope_parameters"] = written.parameters(geometry);
    // Written for the whole head too, because the file or the model's code may have another default. Not written into
    // the section then, where code such as Mistral-4's relates it to more than the rotary head.
    if (written.section["rope_type"] != "proportional")
        config["partial_rotary_factor"] = detail::partial_factor(geometry);
    if (geometry.layout == layout_kind::interleaved) config["rope_interleave"] = true;
    written.add_lengths(config);
    return config;
}

/// Returns the same encoding as the argument of vLLM's --hf-overrides: `rope_parameters` with vLLM's own names of the
/// attention factor, and the lengths. Throws as to_hf_config() does.
inline nlohmann::json to_vllm_overrides(const Encoding& encoding) {
    const detail::written_encoding written(encoding);
    nlohmann::json overrides = detail::vllm_overrides(encoding, written.parts, written.parameters(encoding.geometry));
    written.add_lengths(overrides);
    return overrides;
}

/// Returns the flags of llama.cpp for an encoding, for example "--rope-scaling linear --rope-scale 8 --rope-freq-base
/// 10000". Throws as to_hf_config() does, and for encodings without flags, with the reason.
inline std::string to_llama_cpp_flags(const Encoding& encoding) {
    const detail::engine_flags flags = detail::llama_cpp_flags(encoding, detail::written_encoding(encoding).parts);
    RW_EXPECTS(!flags.flags.empty(), "{}", flags.reason);
    return flags.flags;
}

}  // namespace ropewalk
