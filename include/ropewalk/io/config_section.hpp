// Typed access to an object of a JSON configuration, with errors that name the key.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "ropewalk/core/error.hpp"
#include "ropewalk/core/suggestion.hpp"

namespace ropewalk {

namespace detail {
/// Formats a value of untrusted input on one short line: text is quoted and escaped, arrays and objects are only named.
inline std::string shown(const nlohmann::json& value) {
    if (value.is_structured()) return value.is_array() ? "an array" : "an object";
    constexpr std::size_t longest = 80;
    std::string text = value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
    if (text.size() > longest) text.replace(longest, std::string::npos, "…");
    return text;
}
/// The same for a key or a name; plain names have no quotes.
inline std::string shown_name(std::string_view name) {
    constexpr std::string_view plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";
    if (name.size() <= 60 && name.find_first_not_of(plain) == std::string_view::npos) return std::string(name);
    return shown(nlohmann::json(std::string(name)));
}

/// suggestion() for known names that a file gives.
inline std::string shown_suggestion(std::string_view name, std::span<const std::string_view> known) {
    const std::string_view nearest = nearest_name(name, known);
    return nearest.empty() ? "" : ": did you mean '" + shown_name(nearest) + "'?";
}
}  // namespace detail

/// A non-owning view of a JSON object. A missing key and a null read as nothing; a value of the wrong type throws
/// ropewalk::error. The JSON must outlive the section. A section and its subsections record which values are read.
class config_section {
public:
    config_section(const nlohmann::json& object, std::string path)
        : object_(&object), path_(std::move(path)), values_read_(std::make_shared<std::set<const nlohmann::json*>>()) {}

    [[nodiscard]] const std::string& path() const { return path_; }
    [[nodiscard]] const nlohmann::json& json() const { return *object_; }
    [[nodiscard]] bool empty() const { return object_->empty(); }
    /// Does not count as reading the value.
    [[nodiscard]] bool has(const char* key) const {
        const auto found = object_->find(key);
        return found != object_->end() && !found->is_null();
    }
    [[nodiscard]] bool has_any(std::initializer_list<const char*> keys) const {
        return std::any_of(keys.begin(), keys.end(), [this](const char* key) { return has(key); });
    }

    /// Returns whether a value of this section or of its subsections has been read.
    [[nodiscard]] bool has_read(const nlohmann::json& value) const { return values_read_->contains(&value); }

    [[nodiscard]] std::optional<double> number(const char* key) const {
        const nlohmann::json* const value = find(key);
        if (value == nullptr) return {};
        return number_of(key, *value);
    }
    [[nodiscard]] double required_number(const char* key) const {
        const auto value = number(key);
        RW_EXPECTS(value.has_value(), "{} lacks '{}'", path_, key);
        return *value;
    }
    /// Accepts 4096.0 as well, which some tools write.
    [[nodiscard]] std::optional<std::int64_t> integer(const char* key) const {
        const nlohmann::json* const value = find(key);
        if (value == nullptr) return {};
        return integer_of(key, *value);
    }
    [[nodiscard]] std::optional<std::string> text(const char* key) const {
        const nlohmann::json* const value = find(key);
        if (value == nullptr) return {};
        if (!value->is_string()) wrong_type(key, "text", *value);
        return value->get<std::string>();
    }
    [[nodiscard]] std::optional<bool> flag(const char* key) const {
        const nlohmann::json* const value = find(key);
        if (value == nullptr) return {};
        if (!value->is_boolean()) wrong_type(key, "true or false", *value);
        return value->get<bool>();
    }
    [[nodiscard]] std::optional<config_section> section(const char* key) const {
        const nlohmann::json* const value = find(key);
        if (value == nullptr) return {};
        if (!value->is_object()) wrong_type(key, "an object", *value);
        return config_section(*value, key, values_read_);
    }
    [[nodiscard]] std::vector<double> required_numbers(const char* key, std::int64_t entries) const {
        std::vector<double> numbers;
        for (const nlohmann::json& entry : required_list(key, entries)) numbers.push_back(number_of(key, entry));
        return numbers;
    }
    [[nodiscard]] std::vector<std::int64_t> required_integers(const char* key,
                                                              std::optional<std::int64_t> entries = {}) const {
        std::vector<std::int64_t> numbers;
        for (const nlohmann::json& entry : required_list(key, entries)) numbers.push_back(integer_of(key, entry));
        return numbers;
    }

    /// A value with several accepted keys, which must agree.
    [[nodiscard]] std::optional<double> number_of_any(std::initializer_list<const char*> keys) const {
        return any_of<double>(keys, [this](const char* key) { return number(key); });
    }
    [[nodiscard]] std::optional<std::int64_t> integer_of_any(std::initializer_list<const char*> keys) const {
        return any_of<std::int64_t>(keys, [this](const char* key) { return integer(key); });
    }
    [[nodiscard]] std::optional<bool> flag_of_any(std::initializer_list<const char*> keys) const {
        return any_of<bool>(keys, [this](const char* key) { return flag(key); });
    }

    /// Returns keys and values of an object that maps text to text.
    [[nodiscard]] std::vector<std::pair<std::string, std::string>> texts() const {
        std::vector<std::pair<std::string, std::string>> all;
        for (const auto& [key, value] : object_->items()) {
            if (!value.is_string()) wrong_type(detail::shown_name(key).c_str(), "text", value);
            all.emplace_back(key, value.get<std::string>());
        }
        return all;
    }

    /// Returns the members that are objects, with their keys.
    [[nodiscard]] std::vector<std::pair<std::string, config_section>> subsections() const {
        std::vector<std::pair<std::string, config_section>> parts;
        for (const auto& [key, value] : object_->items()) {
            if (value.is_object())
                parts.emplace_back(key, config_section(value, path_ + "." + detail::shown_name(key), values_read_));
        }
        return parts;
    }

    /// Throws for the first key with a value that is not among the known ones, and suggests the nearest.
    void expect_only(std::span<const std::string_view> known, std::string_view purpose) const {
        for (const auto& [key, value] : object_->items()) {
            if (value.is_null() || std::find(known.begin(), known.end(), key) != known.end()) continue;
            detail::fail("{}: key '{}' is not known for {}{}", path_, detail::shown_name(key), purpose,
                         detail::shown_suggestion(key, known));
        }
    }

    /// Returns whether an array of texts contains a text.
    [[nodiscard]] bool lists(const char* key, const std::string& text) const {
        const nlohmann::json* const value = find(key);
        if (value == nullptr) return false;
        if (!value->is_array()) wrong_type(key, "an array", *value);
        return std::find(value->begin(), value->end(), text) != value->end();
    }

    /// Returns the numbers of a list with one entry per layer. If `layer_types` lists the layer type, only those of its
    /// layers. Empty without a list.
    [[nodiscard]] std::vector<double> numbers_of_layers(const char* key, const std::string& layer_type) const {
        std::vector<double> numbers;
        if (!is_list(key)) return numbers;
        const bool named = !layer_type.empty() && lists("layer_types", layer_type);
        std::int64_t index = 0;
        for (const nlohmann::json& entry : *find(key)) {
            if (!named || is_listed_at("layer_types", index, layer_type)) numbers.push_back(number_of(key, entry));
            ++index;
        }
        return numbers;
    }

    [[nodiscard]] bool list_is_empty(const char* key) const {
        const nlohmann::json* const value = find(key);
        return value != nullptr && value->is_array() && value->empty();
    }
    [[nodiscard]] bool is_list(const char* key) const {
        const nlohmann::json* const value = find(key);
        return value != nullptr && value->is_array();
    }

    /// Returns whether a text is the entry of an array at an index.
    [[nodiscard]] bool is_listed_at(const char* key, std::int64_t index, const std::string& text) const {
        const nlohmann::json* const value = find(key);
        if (value == nullptr || !value->is_array()) return false;
        if (index < 0 || index >= static_cast<std::int64_t>(value->size())) return false;
        return (*value)[static_cast<std::size_t>(index)] == text;
    }

private:
    using read_set = std::shared_ptr<std::set<const nlohmann::json*>>;
    config_section(const nlohmann::json& object, std::string path, read_set values_read)
        : object_(&object), path_(std::move(path)), values_read_(std::move(values_read)) {}

    /// Counts as reading the value.
    [[nodiscard]] const nlohmann::json* find(const char* key) const {
        const auto found = object_->find(key);
        if (found == object_->end() || found->is_null()) return nullptr;
        values_read_->insert(&*found);
        return &*found;
    }
    [[noreturn]] void wrong_type(const char* key, const char* expected, const nlohmann::json& value) const {
        detail::fail("{}.{} must be {}, got {}", path_, key, expected, detail::shown(value));
    }
    [[nodiscard]] double number_of(const char* key, const nlohmann::json& value) const {
        if (!value.is_number() || !std::isfinite(value.get<double>())) wrong_type(key, "a number", value);
        return value.get<double>();
    }
    [[nodiscard]] std::int64_t integer_of(const char* key, const nlohmann::json& value) const {
        constexpr auto largest = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
        if (value.is_number_unsigned() && value.get<std::uint64_t>() > largest) wrong_type(key, "below 2^63", value);
        if (value.is_number_integer()) return value.get<std::int64_t>();
        constexpr double exact = 0x1p53;
        const bool whole = value.is_number_float() && std::abs(value.get<double>()) < exact &&
                           value.get<double>() == std::floor(value.get<double>());
        if (!whole) wrong_type(key, "a whole number", value);
        return static_cast<std::int64_t>(value.get<double>());
    }
    [[nodiscard]] const nlohmann::json& required_list(const char* key, std::optional<std::int64_t> entries) const {
        const nlohmann::json* const value = find(key);
        RW_EXPECTS(value != nullptr, "{} lacks '{}'", path_, key);
        if (!value->is_array()) wrong_type(key, "an array", *value);
        const auto count = static_cast<std::int64_t>(value->size());
        RW_EXPECTS(count == entries.value_or(count), "{}.{} has {} entries, expected {}", path_, key, count,
                   entries.value_or(count));
        return *value;
    }

    template <class T, class Read>
    [[nodiscard]] std::optional<T> any_of(std::initializer_list<const char*> keys, const Read& read) const {
        std::optional<T> first;
        const char* first_key = "";
        for (const char* const key : keys) {
            const auto value = read(key);
            if (!value) continue;
            RW_EXPECTS(!first || *first == *value, "{}: '{}' is {} but '{}' is {}", path_, first_key, first.value_or(0),
                       key, *value);
            if (!first) first_key = key;
            first = value;
        }
        return first;
    }

    const nlohmann::json* object_;
    std::string path_;
    read_set values_read_;
};

}  // namespace ropewalk
