// Errors, and the formatting of their messages.
#pragma once

#include <charconv>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstdio>
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

/// A value in a message: a number, text or an address. Plain data, so that a call that may fail costs little to
/// compile.
class message_value {
public:
    template <std::integral I>
    constexpr message_value(I value)  // NOLINT(google-explicit-constructor)
        : kind_(std::same_as<I, char>     ? kind::character
                : std::signed_integral<I> ? kind::integer
                                          : kind::natural),
          integer_(static_cast<std::uint64_t>(value)) {}
    constexpr message_value(double value)
        : kind_(kind::number), number_(value) {}    // NOLINT(google-explicit-constructor)
    constexpr message_value(std::string_view text)  // NOLINT(google-explicit-constructor)
        : kind_(kind::text), text_(text) {}
    constexpr message_value(const char* text) : message_value(std::string_view(text)) {}         // NOLINT
    constexpr message_value(const std::string& text) : message_value(std::string_view(text)) {}  // NOLINT
    constexpr message_value(const void* address) : kind_(kind::address), address_(address) {}    // NOLINT

    /// Numbers have up to 17 digits, addresses are hexadecimal.
    void append_to(std::string& message) const;

private:
    enum class kind : std::uint8_t { character, integer, natural, number, text, address };
    kind kind_;
    union {
        std::uint64_t integer_;
        double number_;
        std::string_view text_;
        const void* address_;
    };
};

using message_values = std::initializer_list<message_value>;

RW_COLD inline void message_value::append_to(std::string& message) const {
    char digits[32];
    // Whole numbers look the same in every locale. std::to_chars for them costs more to compile.
    int length = 0;
    switch (kind_) {
        case kind::character:
            message += static_cast<char>(integer_);
            return;
        case kind::text:
            message += text_;
            return;
        case kind::number:
            message.append(digits,
                           std::to_chars(digits, digits + sizeof digits, number_, std::chars_format::general, 17).ptr);
            return;
        case kind::integer:
            length = std::snprintf(digits, sizeof digits, "%lld", static_cast<long long>(integer_));
            break;
        case kind::natural:
            length = std::snprintf(digits, sizeof digits, "%llu", static_cast<unsigned long long>(integer_));
            break;
        case kind::address:
            length = std::snprintf(digits, sizeof digits, "0x%llx",
                                   static_cast<unsigned long long>(reinterpret_cast<std::uintptr_t>(address_)));
    }
    message.append(digits, static_cast<std::size_t>(length));
}

/// Replaces each "{}" by the next value. (GCC 12 has no std::format.)
RW_COLD inline std::string format_values(std::string_view text, message_values values) {
    std::string result;
    for (const message_value& value : values) {
        const auto hole = text.find("{}");
        if (hole == std::string_view::npos) break;
        result += text.substr(0, hole);
        value.append_to(result);
        text.remove_prefix(hole + 2);
    }
    return result.append(text);
}
template <class... Args>
std::string format(std::string_view text, const Args&... args) {
    return format_values(text, {args...});
}

[[noreturn]] RW_COLD inline void fail_with(const std::string& message) { throw error("ropewalk: " + message); }

[[noreturn]] RW_COLD inline void fail_values(std::string_view text, message_values values) {
    fail_with(format_values(text, values));
}
template <class... Args>
[[noreturn]] void fail(std::string_view text, const Args&... args) {
    fail_values(text, {args...});
}

}  // namespace detail
}  // namespace ropewalk

/// Throws ropewalk::error with the formatted message unless the condition holds.
#define RW_EXPECTS(condition, text, ...)                                        \
    do {                                                                        \
        if (!(condition)) ::ropewalk::detail::fail_values(text, {__VA_ARGS__}); \
    } while (false)
