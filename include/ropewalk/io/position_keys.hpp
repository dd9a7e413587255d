// Keys of a configuration that name a position encoding: none of them may stay unread.
#pragma once

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include "ropewalk/io/config_section.hpp"
#include "ropewalk/io/model_code.hpp"

namespace ropewalk::detail {

inline std::string lower_case(std::string_view text) {
    std::string lower(text);
    for (char& c : lower) {
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    }
    return lower;
}

/// Returns whether a text contains any of some words, ignoring case.
template <std::size_t N>
bool contains_any(std::string_view text, const std::array<std::string_view, N>& words) {
    const std::string lower = lower_case(text);
    return std::any_of(words.begin(), words.end(),
                       [&](std::string_view word) { return lower.find(word) != std::string::npos; });
}

/// Returns whether a key names a position encoding.
inline bool names_positions(std::string_view key) {
    constexpr std::array words{std::string_view("rope"),
                               std::string_view("rotar"),
                               std::string_view("alibi"),
                               std::string_view("nope"),
                               std::string_view("yarn"),
                               std::string_view("ntk"),
                               std::string_view("xpos"),
                               std::string_view("dual_chunk"),
                               std::string_view("position_embedding"),
                               std::string_view("position_encoding"),
                               std::string_view("pos_emb"),
                               std::string_view("pos_enc"),
                               std::string_view("positional_"),
                               std::string_view("position_type"),
                               std::string_view("position_interpolation"),
                               std::string_view("learned_position"),
                               std::string_view("rel_pos"),
                               std::string_view("relative_attention"),
                               std::string_view("self_extend")};
    constexpr std::array<std::string_view, 1> others{"propert"};  // "properties" contains "rope"
    return contains_any(key, words) && !contains_any(key, others);
}

/// A key that names a position encoding and does not change it. Empty `value`: whatever its value is.
struct harmless_key {
    std::string_view key, value;
};

// clang-format off
inline constexpr std::array harmless_keys{
    // lengths, which scaling methods read
    harmless_key{"max_position_embeddings", ""},
    harmless_key{"original_max_position_embeddings", ""},
    // widths of DeepSeek's heads
    harmless_key{"qk_nope_head_dim", ""},
    harmless_key{"qk_rope_head_dim", ""},
    // choices between kernels or formulas with the same results
    harmless_key{"flash_rotary", ""},
    harmless_key{"fused_rotary", ""},
    harmless_key{"use_flash_rotary", ""},
    harmless_key{"use_fused_rope", ""},
    harmless_key{"rope_full_precision", ""},
    harmless_key{"rope_max_length", ""},
    harmless_key{"original_rope", ""},
    // DeepSeek-V3.2's indexer, which is not attention
    harmless_key{"indexer_rope_interleave", ""},
    // repeats no_rope_layers
    harmless_key{"no_rope_layer_interval", ""},
    // has an effect with alibi, which is rejected
    harmless_key{"alibi_bias_max", ""},
    // switches and factors without effect
    harmless_key{"learned_pos_emb", "false"},
    harmless_key{"rope_interleaved", "false"},
    harmless_key{"rope_position_scale", "1"},
    harmless_key{"rope_scaling_factor", "1"},
    harmless_key{"rotary_scaling_factor", "1"},
    harmless_key{"rotary_value", "false"},
    harmless_key{"use_absolute_position_embeddings", "false"},
    harmless_key{"use_dynamic_ntk", "false"},
    harmless_key{"use_mrope", "false"},
    harmless_key{"use_pos_enc", "true"},
    harmless_key{"use_rope_layers", "[]"},
    harmless_key{"use_position_embeddings", "false"},
    harmless_key{"use_xpos", "false"},
};
// clang-format on

/// Returns whether a key of a section cannot change the encoding.
inline bool is_harmless(std::string_view key, const nlohmann::json& value) {
    return std::any_of(harmless_keys.begin(), harmless_keys.end(), [&](const harmless_key& known) {
        if (known.key != key) return false;
        if (known.value == "1") return value.is_number() && value.get<double>() == 1;
        return known.value.empty() || value.dump() == known.value;
    });
}

/// Returns whether an object belongs to another part of the model than its attention over text. A model within a model
/// of an unknown type may be its attention.
inline bool is_other_part(std::string_view key, const nlohmann::json& object, const model_code& code) {
    constexpr std::array<std::string_view, 16> words{
        "protein", "vision",   "visual",    "vit",       "image",     "video",        "audio",       "speech",
        "talker",  "code2wav", "token2wav", "projector", "assistant", "quantization", "compression", "task_specific"};
    return (code.is_known() && !text_or_nothing(object, "model_type").empty()) || contains_any(key, words);
}

/// Throws for the first key that names a position encoding and has not been read, at any level of an object or array.
/// Sections of scaling methods reject unknown keys themselves.
inline void reject_unread_keys(const config_section& model, const model_code& code, const nlohmann::json& part,
                               const std::string& path) {
    if (part.is_array()) {
        for (const nlohmann::json& entry : part) {
            if (entry.is_structured()) reject_unread_keys(model, code, entry, path);
        }
        return;
    }
    for (const auto& [key, value] : part.items()) {
        if (value.is_null() || is_harmless(key, value)) continue;
        const bool states_alibi = value.is_string() && lower_case(value.get_ref<const std::string&>()) == "alibi";
        if (names_positions(key) || states_alibi) {
            RW_EXPECTS(model.has_read(value),
                       "{}: key '{}' ({}) names a position encoding and is not supported: remove it only if the model "
                       "ignores it",
                       path, shown_name(key), shown(value));
        } else if (value.is_structured() && !is_other_part(key, value, code)) {
            reject_unread_keys(model, code, value, path + "." + shown_name(key));
        }
    }
}

}  // namespace ropewalk::detail
