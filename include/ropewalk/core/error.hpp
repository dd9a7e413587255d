// Errors which carry the values that caused them.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>

namespace ropewalk {

/// What every public function of ropewalk throws when its arguments are wrong. Nothing has been written by then.
class error : public std::invalid_argument {
public:
    using std::invalid_argument::invalid_argument;
};

namespace detail {

inline void append_formatted(std::ostringstream& out, std::string_view format) { out << format; }

template <class First, class... Rest>
void append_formatted(std::ostringstream& out, std::string_view format, const First& first, const Rest&... rest) {
    const auto hole = format.find("{}");
    out << format.substr(0, hole);
    if (hole == std::string_view::npos) return;
    out << first;
    append_formatted(out, format.substr(hole + 2), rest...);
}

/// Replaces each "{}" by the next argument. (std::format is missing in GCC 12.)
template <class... Args>
std::string format(std::string_view text, const Args&... args) {
    std::ostringstream out;
    out.precision(17);
    append_formatted(out, text, args...);
    return out.str();
}

template <class... Args>
[[noreturn]] void fail(std::string_view text, const Args&... args) {
    throw error(std::string("ropewalk: ").append(format(text, args...)));
}

}  // namespace detail
}  // namespace ropewalk

/// Throws ropewalk::error with the formatted message unless the condition holds.
#define RW_EXPECTS(condition, ...)                               \
    do {                                                         \
        if (!(condition)) ::ropewalk::detail::fail(__VA_ARGS__); \
    } while (false)
