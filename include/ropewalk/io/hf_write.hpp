// An encoding as the keys of a Hugging Face config.json. Optional: needs nlohmann/json.
#pragma once

#include <cmath>
#include <cstdint>
#include <optional>

#include <nlohmann/json.hpp>

#include "ropewalk/encoding.hpp"
#include "ropewalk/io/peer_flags.hpp"
#include "ropewalk/io/rope_section.hpp"

namespace ropewalk {

namespace detail {

/// The factor whose product with the head, truncated, is the width.
inline double partial_factor(const Geometry& geometry) {
    const auto head = static_cast<double>(geometry.head_dim), width = static_cast<double>(geometry.width());
    double part = width / head;
    while (std::floor(head * part) < width) part = std::nextafter(part, 2.0);
    return part;
}

inline std::optional<std::int64_t> dynamic_original_length(const written_policies& parts) {
    if (parts.frequencies.empty()) return {};
    const auto* const dynamic = std::get_if<DynamicNtk>(&parts.frequencies.front());
    return dynamic == nullptr ? std::nullopt : std::optional(dynamic->original_length);
}

}  // namespace detail

/// The keys that give a model this encoding, to be merged into its config.json, or into its text_config where it has
/// one; encoding_from_config() reads them back.
///
/// - `rope_parameters` and the older `rope_scaling` (null for plain RoPE), which say the same, `rope_theta`,
/// `head_dim`,
///   `partial_rotary_factor` (1 for the whole head, but not beside proportional, which has its own), and, where they
///   differ from the usual, `rope_interleave` and `max_position_embeddings` (the length that `dynamic` starts from),
///   and `original_max_position_embeddings` where the scheme has it, because one that the model had at this level would
///   win;
/// - `vllm_overrides`: an object, what vLLM takes behind --hf-overrides;
/// - `llama_cpp_flags`: text, or null where llama.cpp has no flags for it, and then `llama_cpp_reason` says why.
///
/// linear, dynamic, yarn, llama3, longrope, proportional and mrope have a rope_type of their own. Power, truncated, ntk
/// and several policies in a row are written as `longrope` with the factors θ_j/θ'_j in both lists; a pair that stands
/// still has the factor 1e30. Throws ropewalk::error for what a configuration cannot say: xpos, randomized positions, a
/// rotary part that does not start the head, `dynamic` or `longrope` among others.
inline nlohmann::json to_hf_config(const Encoding& encoding) {
    const Geometry& geometry = encoding.geometry;
    RW_EXPECTS(geometry.rotary_offset == 0, "a configuration cannot say that the rotary part starts at element {}",
               geometry.rotary_offset);
    const detail::written_policies parts = detail::take_apart(encoding);
    nlohmann::json section = detail::section_of(encoding, parts);
    const bool plain = section.size() == 1 && section["rope_type"] == "default";
    const bool partial = geometry.width() != geometry.head_dim;
    RW_EXPECTS(!partial || section["rope_type"] != "proportional",
               "proportional turns the whole head of {} elements, a rotary part of {} cannot be written",
               geometry.head_dim, geometry.width());

    nlohmann::json config{{"head_dim", geometry.head_dim}, {"rope_theta", geometry.base}, {"rope_scaling", nullptr}};
    if (!plain) {
        nlohmann::json old = section;
        old["type"] = old["rope_type"];
        old.erase("rope_type");
        config["rope_scaling"] = std::move(old);
    }
    section["rope_theta"] = geometry.base;
    // For the whole head too: the file may have another width, or its kind of model. Not in the section, where code
    // such as Mistral-4's takes it for a part of more than the rotary head.
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
    const detail::peer_flags flags = detail::llama_cpp_flags(encoding, parts);
    if (flags.flags.empty()) {
        config["llama_cpp_flags"] = nullptr;
        config["llama_cpp_reason"] = flags.reason;
    } else {
        config["llama_cpp_flags"] = flags.flags;
    }
    return config;
}

}  // namespace ropewalk
