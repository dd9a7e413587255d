// Writer of encodings as keys of a Hugging Face config.json. Optional: needs nlohmann/json.
#pragma once

#include <cmath>
#include <cstdint>
#include <optional>

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

}  // namespace detail

/// Returns the keys that give a model this encoding, to be merged into its config.json (into text_config if it has
/// one). encoding_from_config() reads them back.
///
/// - `rope_parameters` and the older `rope_scaling` with the same content (null for plain RoPE);
/// - `rope_theta`, `head_dim` and `partial_rotary_factor` (1 for the whole head; absent for proportional, which has its
///   own);
/// - if they differ from the default: `rope_interleave`; `max_position_embeddings`, the length from which `dynamic`
///   scales; `original_max_position_embeddings`, because a value that the model has at this level would take
///   precedence;
/// - `vllm_overrides`: an object, the argument of vLLM's --hf-overrides;
/// - `llama_cpp_flags`: text, or null if llama.cpp cannot express the encoding; `llama_cpp_reason` then says why.
///
/// linear, dynamic, yarn, llama3, longrope, proportional and mrope have their own rope_type. Power, truncated, ntk and
/// compositions are written as `longrope` with the factors θ_j/θ'_j in both lists; a pair with frequency 0 has the
/// factor 1e30. Throws ropewalk::error for encodings that a configuration cannot express: xpos, randomized positions, a
/// rotary part that does not start the head, `dynamic` or `longrope` in a composition.
inline nlohmann::json to_hf_config(const Encoding& encoding) {
    const Geometry& geometry = encoding.geometry;
    RW_EXPECTS(geometry.rotary_offset == 0, "a configuration cannot express a rotary part that starts at element {}",
               geometry.rotary_offset);
    const detail::written_policies parts = detail::split_policies(encoding);
    nlohmann::json section = detail::section_of(encoding, parts);
    const bool plain = section.size() == 1 && section["rope_type"] == "default";
    const bool partial = geometry.width() != geometry.head_dim;
    RW_EXPECTS(!partial || section["rope_type"] != "proportional",
               "proportional needs the whole head of {} elements as its rotary part, got {}", geometry.head_dim,
               geometry.width());

    nlohmann::json config{{"head_dim", geometry.head_dim}, {"rope_theta", geometry.base}, {"rope_scaling", nullptr}};
    if (!plain) {
        nlohmann::json old = section;
        old["type"] = old["rope_type"];
        old.erase("rope_type");
        config["rope_scaling"] = std::move(old);
    }
    section["rope_theta"] = geometry.base;
    // Written for the whole head too, because the file or the model's code may have another default. Not written into
    // the section, where code such as Mistral-4's relates it to more than the rotary head.
    if (section["rope_type"] != "proportional") config["partial_rotary_factor"] = detail::partial_factor(geometry);
    if (partial) section["partial_rotary_factor"] = config["partial_rotary_factor"];
    if (geometry.layout == layout_kind::interleaved) config["rope_interleave"] = true;
    config["vllm_overrides"] = detail::vllm_overrides(encoding, parts, section);
    if (const auto original = detail::dynamic_original_length(parts)) {
        config["max_position_embeddings"] = config["vllm_overrides"]["max_position_embeddings"] = *original;
    }
    constexpr const char* original_key = "original_max_position_embeddings";
    if (section.contains(original_key)) {
        config[original_key] = config["vllm_overrides"][original_key] = section[original_key];
    }
    config["rope_parameters"] = std::move(section);
    const detail::engine_flags flags = detail::llama_cpp_flags(encoding, parts);
    if (flags.flags.empty()) {
        config["llama_cpp_flags"] = nullptr;
        config["llama_cpp_reason"] = flags.reason;
    } else {
        config["llama_cpp_flags"] = flags.flags;
    }
    return config;
}

}  // namespace ropewalk
