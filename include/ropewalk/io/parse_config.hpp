// JSON text to JSON, with limits and errors of one line.
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

// Real files have a few kilobytes and five levels.
inline constexpr std::size_t longest_config = std::size_t{16} << 20;
inline constexpr int deepest_config = 64;

/// Refuses what nlohmann/json would take: a key that comes twice, of which it keeps the last, and endless nesting.
class strict_json {
public:
    explicit strict_json(std::string source) : source_(std::move(source)) {}

    bool operator()(int depth, nlohmann::json::parse_event_t event, const nlohmann::json& parsed) {
        using event_t = nlohmann::json::parse_event_t;
        if (event == event_t::object_start || event == event_t::array_start) {
            RW_EXPECTS(depth < deepest_config, "{} is nested deeper than {} levels", source_, deepest_config);
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
    std::vector<std::set<std::string>> keys_;  ///< of every object that is open
};

/// Python writes Infinity and NaN, which JSON does not know; some models have them in parts that are none of ours. As
/// texts they are no numbers to whoever asks for one.
inline std::string with_constants_quoted(const std::string& text) {
    std::string quoted;
    bool inside = false;
    for (std::size_t at = 0; at < text.size(); ++at) {
        if (!inside) {
            for (const std::string_view constant : {"-Infinity", "Infinity", "NaN"}) {
                if (text.compare(at, constant.size(), constant) != 0) continue;
                quoted.append("\"").append(constant).append("\"");
                at += constant.size();
                break;
            }
            if (at >= text.size()) break;
        }
        quoted += text[at];
        if (text[at] == '"') inside = !inside;
        if (inside && text[at] == '\\' && at + 1 < text.size()) quoted += text[++at];
    }
    return quoted;
}

/// JSON text of any length, strictly.
inline nlohmann::json parse_json(std::string_view text, const std::string& source) {
    try {
        return nlohmann::json::parse(text, strict_json(source));
    } catch (const nlohmann::json::exception& problem) {
        constexpr std::size_t longest = 200;  // it quotes what it read last, however long
        std::string what = problem.what();
        if (what.size() > longest) what.replace(longest, std::string::npos, "…");
        fail("{} is no JSON: {}", source, what);
    }
}

}  // namespace detail

/// JSON text; `source` is what messages call it. Throws ropewalk::error, one line, for what is no JSON, has a key
/// twice, is nested deeper than 64 levels or longer than 16 MiB.
inline nlohmann::json parse_config(const std::string& text, const std::string& source) {
    RW_EXPECTS(text.size() <= detail::longest_config, "{} has {} bytes, a configuration at most {}", source,
               text.size(), detail::longest_config);
    return detail::parse_json(detail::with_constants_quoted(text), source);
}

/// Whether a path leads to a folder; false as well where nobody can tell.
inline bool is_folder(const std::filesystem::path& path) {
    std::error_code problem;
    return std::filesystem::is_directory(path, problem);
}

/// Whether a path leads anywhere, likewise.
inline bool is_there(const std::filesystem::path& path) {
    std::error_code problem;
    return std::filesystem::exists(path, problem);
}

/// The same for a file.
inline nlohmann::json parse_config_file(const std::filesystem::path& path) {
    RW_EXPECTS(!is_folder(path), "{} is a folder, expected a file", path.string());
    std::ifstream file(path, std::ios::binary);
    RW_EXPECTS(file, "cannot read {}", path.string());
    std::string text(detail::longest_config + 1, '\0');
    file.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<std::size_t>(file.gcount()));
    return parse_config(text, path.string());
}

}  // namespace ropewalk
