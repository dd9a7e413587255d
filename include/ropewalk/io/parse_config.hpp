// Strict parsing of JSON files, with limits on size and nesting and one-line errors.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "ropewalk/io/config_section.hpp"
#include "ropewalk/io/regular_file.hpp"

namespace ropewalk {

namespace detail {

// Published files have a few kilobytes and five levels.
inline constexpr std::size_t max_config_bytes = std::size_t{16} << 20;
inline constexpr std::size_t max_config_depth = 64;

/// Builds the value of a JSON text in time proportional to its length. Rejects duplicate keys, of which nlohmann/json
/// keeps the last, and deep nesting. The library's own callbacks search all siblings at the end of each object.
class strict_json final : public nlohmann::json_sax<nlohmann::json> {
public:
    explicit strict_json(std::string source) : source_(std::move(source)) {}

    [[nodiscard]] nlohmann::json& value() { return root_; }

    bool null() override { return add(nullptr); }
    bool boolean(bool value) override { return add(value); }
    bool number_integer(number_integer_t value) override { return add(value); }
    bool number_unsigned(number_unsigned_t value) override { return add(value); }
    bool number_float(number_float_t value, const string_t& /*text*/) override { return add(value); }
    bool string(string_t& value) override { return add(std::move(value)); }
    bool binary(binary_t& value) override { return add(std::move(value)); }

    bool start_object(std::size_t /*entries*/) override { return open(nlohmann::json::object()); }
    bool start_array(std::size_t /*entries*/) override { return open(nlohmann::json::array()); }
    bool end_object() override { return close(); }
    bool end_array() override { return close(); }
    bool key(string_t& key) override {
        const auto [entry, is_new] = open_.back()->emplace(key, nullptr);
        RW_EXPECTS(is_new, "{} has the key '{}' twice", source_, shown_name(key));
        member_ = &*entry;
        return true;
    }

    bool parse_error(std::size_t /*position*/, const std::string& /*token*/,
                     const nlohmann::json::exception& problem) override {
        constexpr std::size_t longest = 200;  // the message quotes the last token, which can be long
        std::string what = problem.what();
        if (what.size() > longest) what.replace(longest, std::string::npos, "…");
        fail("{} is not valid JSON: {}", source_, what);
    }

private:
    template <class T>
    nlohmann::json& place(T&& value) {
        if (open_.empty()) return root_ = nlohmann::json(std::forward<T>(value));
        if (open_.back()->is_array()) return open_.back()->emplace_back(std::forward<T>(value));
        return *member_ = nlohmann::json(std::forward<T>(value));
    }
    template <class T>
    bool add(T&& value) {
        place(std::forward<T>(value));
        return true;
    }
    bool open(nlohmann::json empty) {
        RW_EXPECTS(open_.size() < max_config_depth, "{} is nested deeper than {} levels", source_, max_config_depth);
        open_.push_back(&place(std::move(empty)));
        return true;
    }
    bool close() {
        open_.pop_back();
        return true;
    }

    std::string source_;
    nlohmann::json root_;
    std::vector<nlohmann::json*> open_;  ///< objects and arrays, from the outermost one
    nlohmann::json* member_ = nullptr;   ///< value of the last key
};

/// Quotes Infinity and NaN, which Python writes and JSON does not allow. Some models have them in keys that are not
/// read here; as texts they fail where a number is expected.
inline std::string with_constants_quoted(const std::string& text) {
    std::string quoted;
    bool inside = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (!inside) {
            for (const std::string_view constant : {"-Infinity", "Infinity", "NaN"}) {
                if (text.compare(i, constant.size(), constant) != 0) continue;
                quoted.append("\"").append(constant).append("\"");
                i += constant.size();
                break;
            }
            if (i >= text.size()) break;
        }
        quoted += text[i];
        if (text[i] == '"') inside = !inside;
        if (inside && text[i] == '\\' && i + 1 < text.size()) quoted += text[++i];
    }
    return quoted;
}

/// Parses JSON text of any length.
inline nlohmann::json parse_json(std::string_view text, const std::string& source) {
    strict_json handler(source);
    nlohmann::json::sax_parse(text, &handler);
    return std::move(handler.value());
}

inline void expect_config_size(std::size_t bytes, const std::string& source) {
    RW_EXPECTS(bytes <= max_config_bytes, "{} has {} bytes, the limit is {}", source, bytes, max_config_bytes);
}

}  // namespace detail

/// Parses JSON text; `source` names it in messages. Throws ropewalk::error, one line, for invalid JSON, duplicate keys,
/// more than 64 levels or more than 16 MiB.
inline nlohmann::json parse_config(const std::string& text, const std::string& source) {
    detail::expect_config_size(text.size(), source);
    return detail::parse_json(detail::with_constants_quoted(text), source);
}

/// Returns whether a path is a folder; false on errors.
inline bool is_folder(const std::filesystem::path& path) {
    std::error_code problem;
    return std::filesystem::is_directory(path, problem);
}

/// Returns whether a path exists; false on errors.
inline bool is_there(const std::filesystem::path& path) {
    std::error_code problem;
    return std::filesystem::exists(path, problem);
}

/// Parses a JSON file, as parse_config() does. Reads regular files only.
inline nlohmann::json parse_config_file(const std::filesystem::path& path) {
    detail::regular_file file(path);
    detail::expect_config_size(file.size(), path.string());
    return parse_config(file.read(detail::max_config_bytes + 1), path.string());
}

}  // namespace ropewalk
