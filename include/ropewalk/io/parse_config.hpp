// Strict parsing of JSON files, with limits on size and nesting and one-line errors.
#pragma once

#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "ropewalk/io/config_section.hpp"

namespace ropewalk {

namespace detail {

// Published files have a few kilobytes and five levels.
inline constexpr std::size_t max_config_bytes = std::size_t{16} << 20;
inline constexpr int max_config_depth = 64;

/// Parser callback that rejects duplicate keys, of which nlohmann/json keeps the last, and deep nesting.
class strict_json {
public:
    explicit strict_json(std::string source) : source_(std::move(source)) {}

    bool operator()(int depth, nlohmann::json::parse_event_t event, const nlohmann::json& parsed) {
        using event_t = nlohmann::json::parse_event_t;
        if (event == event_t::object_start || event == event_t::array_start) {
            RW_EXPECTS(depth < max_config_depth, "{} is nested deeper than {} levels", source_, max_config_depth);
        }
        if (event == event_t::object_start) keys_.emplace_back();
        if (event == event_t::object_end) keys_.pop_back();
        if (event == event_t::key) {
            const auto& key = parsed.get_ref<const std::string&>();
            RW_EXPECTS(keys_.back().insert(key).second, "{} has the key '{}' twice", source_, shown_name(key));
        }
        return true;
    }

private:
    std::string source_;
    std::vector<std::set<std::string>> keys_;  ///< of all open objects
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
    try {
        return nlohmann::json::parse(text, strict_json(source));
    } catch (const nlohmann::json::exception& problem) {
        constexpr std::size_t longest = 200;  // the message quotes the last token, which can be long
        std::string what = problem.what();
        if (what.size() > longest) what.replace(longest, std::string::npos, "…");
        fail("{} is not valid JSON: {}", source, what);
    }
}

}  // namespace detail

/// Parses JSON text; `source` names it in messages. Throws ropewalk::error, one line, for invalid JSON, duplicate keys,
/// more than 64 levels or more than 16 MiB.
inline nlohmann::json parse_config(const std::string& text, const std::string& source) {
    RW_EXPECTS(text.size() <= detail::max_config_bytes, "{} has {} bytes, the limit is {}", source, text.size(),
               detail::max_config_bytes);
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

/// Parses a JSON file, as parse_config() does.
inline nlohmann::json parse_config_file(const std::filesystem::path& path) {
    RW_EXPECTS(!is_folder(path), "{} is a folder, expected a file", path.string());
    std::ifstream file(path, std::ios::binary);
    RW_EXPECTS(file, "cannot read {}", path.string());
    std::string text(detail::max_config_bytes + 1, '\0');
    file.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<std::size_t>(file.gcount()));
    return parse_config(text, path.string());
}

}  // namespace ropewalk
