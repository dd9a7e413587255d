// Errors, and the formatting of their messages.
#pragma once

#include <charconv>
#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <string_view>

#include "ropewalk/core/compiler.hpp"

namespace ropewalk {

/// The exception of every public function for invalid arguments. It is thrown before any output is written.
class RW_PUBLIC error : public std::invalid_argument {
public:
    using std::invalid_argument::invalid_argument;
};

namespace detail {

/// Formats a value: numbers to 17 digits, addresses in hexadecimal. The overloads are few because every translation
/// unit compiles them.
inline std::string text_of(std::string_view text) { return std::string(text); }
inline std::string text_of(const char* text) { return text; }
inline std::string text_of(double value) {
    char digits[32];
    return {digits, std::to_chars(digits, digits + sizeof digits, value, std::chars_format::general, 17).ptr};
}
inline std::string text_of(const void* address) {
    char digits[32];
    const auto bits = reinterpret_cast<std::uintptr_t>(address);
    return std::string("0x").append(digits, std::to_chars(digits, digits + sizeof digits, bits, 16).ptr);
}
template <std::integral I>
std::string text_of(I value) {
    if constexpr (std::same_as<I, char>) {
        return {value};
    } else {
        return std::to_string(value);
    }
}

/// Replaces each "{}" by the next value.
inline std::string fill_in(std::string_view text, std::initializer_list<std::string> values) {
    std::string result;
    for (const std::string& value : values) {
        const auto hole = text.find("{}");
        if (hole == std::string_view::npos) break;
        result.append(text.substr(0, hole)).append(value);
        text.remove_prefix(hole + 2);
    }
    return result.append(text);
}

/// Replaces each "{}" by the next argument: a number, text or an address. (GCC 12 has no std::format.)
template <class... Args>
std::string format(std::string_view text, const Args&... args) {
    return fill_in(text, {text_of(args)...});
}

[[noreturn]] inline void fail_with(const std::string& message) { throw error("ropewalk: " + message); }

template <class... Args>
[[noreturn]] void fail(std::string_view text, const Args&... args) {
    fail_with(fill_in(text, {text_of(args)...}));
}

}  // namespace detail
}  // namespace ropewalk

/// Throws ropewalk::error with the formatted message unless the condition holds.
#define RW_EXPECTS(condition, ...)                               \
    do {                                                         \
        if (!(condition)) ::ropewalk::detail::fail(__VA_ARGS__); \
    } while (false)
