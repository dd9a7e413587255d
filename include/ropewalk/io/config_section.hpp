// An object of a JSON configuration whose errors name the key.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "ropewalk/core/error.hpp"

namespace ropewalk {

/// Reads typed values. A key that is missing or null reads as nothing; one of another type throws. The JSON must
/// outlive the section.
class config_section {
public:
    config_section(const nlohmann::json& object, std::string path) : object_(&object), path_(std::move(path)) {}

    /// A section without keys.
    static config_section nothing(std::string path) {
        static const nlohmann::json none = nlohmann::json::object();
        return {none, std::move(path)};
    }

    [[nodiscard]] const std::string& path() const { return path_; }
    /// The last part of the path.
    [[nodiscard]] std::string name() const { return path_.substr(path_.rfind('.') + 1); }
    [[nodiscard]] bool empty() const { return object_->empty(); }
    [[nodiscard]] bool has(const char* key) const { return find(key) != nullptr; }

    [[nodiscard]] std::optional<double> number(const char* key) const {
        const nlohmann::json* const value = find(key);
        if (value == nullptr) return {};
        if (!value->is_number()) wrong_type(key, "a number", *value);
        return value->get<double>();
    }
    [[nodiscard]] double required_number(const char* key) const {
        const auto value = number(key);
        RW_EXPECTS(value.has_value(), "{} lacks '{}'", path_, key);
        return *value;
    }
    [[nodiscard]] std::optional<std::int64_t> integer(const char* key) const {
        const nlohmann::json* const value = find(key);
        if (value == nullptr) return {};
        if (!value->is_number_integer()) wrong_type(key, "a whole number", *value);
        return value->get<std::int64_t>();
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
        return config_section(*value, key);
    }

    /// The first of several names of one thing.
    [[nodiscard]] std::optional<double> first_number(std::initializer_list<const char*> keys) const {
        for (const char* const key : keys) {
            if (has(key)) return number(key);
        }
        return {};
    }
    [[nodiscard]] std::optional<std::int64_t> first_integer(std::initializer_list<const char*> keys) const {
        for (const char* const key : keys) {
            if (has(key)) return integer(key);
        }
        return {};
    }

    /// The members that are objects themselves.
    [[nodiscard]] std::vector<config_section> subsections() const {
        std::vector<config_section> parts;
        for (const auto& [key, value] : object_->items()) {
            if (value.is_object()) parts.emplace_back(value, path_ + "." + key);
        }
        return parts;
    }

    /// Whether an array of texts has this one.
    [[nodiscard]] bool lists(const char* key, const std::string& text) const {
        const nlohmann::json* const value = find(key);
        if (value == nullptr) return false;
        if (!value->is_array()) wrong_type(key, "an array", *value);
        for (const nlohmann::json& one : *value) {
            if (one.is_string() && one.get<std::string>() == text) return true;
        }
        return false;
    }

private:
    [[nodiscard]] const nlohmann::json* find(const char* key) const {
        const auto found = object_->find(key);
        return found == object_->end() || found->is_null() ? nullptr : &*found;
    }
    [[noreturn]] void wrong_type(const char* key, const char* expected, const nlohmann::json& value) const {
        detail::fail("{}.{} must be {}, got {}", path_, key, expected, value.dump());
    }

    const nlohmann::json* object_;
    std::string path_;
};

}  // namespace ropewalk
