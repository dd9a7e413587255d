// Behaviour of the code of a model type that its configuration does not state.
#pragma once

#include <algorithm>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "ropewalk/core/layout.hpp"
#include "ropewalk/io/config_section.hpp"
#include "ropewalk/io/model_table.hpp"

namespace ropewalk::detail {

template <class List>
constexpr bool contains(const List& list, std::string_view name) {
    return std::find(std::begin(list), std::end(list), name) != std::end(list);
}

/// Returns a text member of an object, or "". The reader rejects members of another type later.
inline std::string text_or_nothing(const nlohmann::json& object, const char* key) {
    const auto found = object.find(key);
    return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

/// Returns the model_type of a configuration. If the table has no such type, that of the first known architecture.
inline std::string stated_model_type(const nlohmann::json& model) {
    std::string type = text_or_nothing(model, "model_type");
    if (find_model(type) != nullptr) return type;
    const auto architectures = model.find("architectures");
    if (architectures == model.end() || !architectures->is_array()) return type;
    for (const nlohmann::json& name : *architectures) {
        if (!name.is_string()) continue;
        const std::string_view known = model_type_of(name.get_ref<const std::string&>());
        if (!known.empty()) return std::string(known);
    }
    return type;
}

/// The entry of a model type and its defaults. A type that the table does not have has no defaults.
struct model_code {
    std::string model_type;
    const model_entry* entry = nullptr;
    nlohmann::json defaults = nlohmann::json::object();

    explicit model_code(std::string type) : model_type(std::move(type)), entry(find_model(model_type)) {
        if (entry != nullptr && !entry->defaults.empty()) defaults = nlohmann::json::parse(entry->defaults);
    }

    /// The code of the language model in a configuration of several models, by the model_type of its part, "" if that
    /// states none.
    [[nodiscard]] model_code language_model(const std::string& stated) const {
        const auto part = defaults.find("text_config");
        // Without a part of its own, this is the innermost language model.
        if (part == defaults.end()) return model_code(stated.empty() ? model_type : stated);
        const std::string standard = text_or_nothing(*part, "model_type");
        model_code code(stated.empty() || defaults.value("fixed_text_type", false) ? standard : stated);
        if (defaults.value("merges_text_defaults", false) && code.model_type == standard) code.defaults.update(*part);
        return code;
    }
    /// The code for a configuration whose keys of the language model are not in a part. Only then do the sizes of the
    /// default part count.
    [[nodiscard]] model_code flat_language_model() const {
        const auto part = defaults.find("text_config");
        if (part == defaults.end()) return *this;
        model_code code = language_model("");
        code.defaults.update(*part);
        return code;
    }

    [[nodiscard]] bool is_known() const { return entry != nullptr; }
    [[nodiscard]] bool rotates() const {
        return entry == nullptr || entry->rotation == model_rotation::half_split ||
               entry->rotation == model_rotation::interleaved;
    }
    /// The layout of the weights; Llama's for an unknown type.
    [[nodiscard]] layout_kind layout() const {
        return entry != nullptr && entry->rotation == model_rotation::interleaved ? layout_kind::interleaved
                                                                                  : layout_kind::half_split;
    }
    /// Returns whether attention multiplies the softmax scale by the square of YaRN's m(mscale_all_dim). A
    /// configuration without model_type is read as DeepSeek's.
    [[nodiscard]] bool scales_softmax() const { return model_type.empty() || defaults.value("softmax_scaling", false); }
};

}  // namespace ropewalk::detail
