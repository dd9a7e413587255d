// Errors, and the formatting of their messages.
#pragma once

#include <charconv>
#include <concepts>
#include <cstddef>
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

/// The largest index of at most `index` where a character of UTF-8 begins.
constexpr std::size_t character_start(std::string_view text, std::size_t index) {
    while (index > 0 && index < text.size() && (static_cast<unsigned char>(text[index]) & 0xC0U) == 0x80U) --index;
    return index;
}

/// Part of a text for a message: all of a text of at most `longest` bytes, else the 80 bytes around byte `at`.
class excerpt {
public:
    constexpr excerpt(std::string_view text, std::size_t at, std::size_t longest)
        : part_(text), at_(at), whole_(text.size()) {
        if (whole_ <= longest) return;
        const std::size_t last = whole_ - shown, before = at > shown / 2 ? at - shown / 2 : 0;
        begin_ = character_start(text, before < last ? before : last);
        part_ = text.substr(begin_, character_start(text, begin_ + shown) - begin_);
    }

    /// Appends the part with dots for bytes that are left out. Returns the column of byte `at`.
    std::size_t append_to(std::string& message) const {
        const std::size_t start = message.size();
        if (begin_ > 0) message.append("...");
        const std::size_t column = message.size() - start + at_ - begin_;
        message.append(part_);
        if (begin_ + part_.size() < whole_) message.append("...");
        if (part_.size() < whole_) message.append(" (").append(std::to_string(whole_)).append(" bytes)");
        return column;
    }

private:
    static constexpr std::size_t shown = 80;

    std::string_view part_;
    std::size_t at_, whole_, begin_ = 0;
};

/// A value of a message. Plain data: a call of RW_EXPECTS stores it in a few instructions, and only a failure formats
/// it.
class message_value {
public:
    template <std::integral I>
    constexpr message_value(I value)  // NOLINT(google-explicit-constructor)
        : kind_(std::same_as<I, char>       ? kind::letter
                : std::unsigned_integral<I> ? kind::unsigned_integer
                                            : kind::integer),
          integer_(static_cast<std::uint64_t>(value)) {}
    constexpr message_value(double value) : kind_(kind::real), real_(value) {}  // NOLINT(google-explicit-constructor)
    constexpr message_value(const void* address) : kind_(kind::address), address_(address) {}  // NOLINT
    constexpr message_value(std::string_view text) : kind_(kind::text), text_(text) {}         // NOLINT
    constexpr message_value(const char* text) : message_value(std::string_view(text)) {}       // NOLINT
    message_value(const std::string& text) : message_value(std::string_view(text)) {}          // NOLINT

    /// Numbers to 17 digits, addresses in hexadecimal. Text above 1,000 bytes is cut, since messages must not grow with
    /// the input.
    RW_INLINE void append_to(std::string& message) const {
        char digits[32];
        char* const end = digits + sizeof digits;
        switch (kind_) {
            case kind::letter:
                message.push_back(static_cast<char>(integer_));
                return;
            case kind::integer:
                message.append(digits, std::to_chars(digits, end, static_cast<std::int64_t>(integer_)).ptr);
                return;
            case kind::unsigned_integer:
                message.append(digits, std::to_chars(digits, end, integer_).ptr);
                return;
            case kind::real:
                message.append(digits, std::to_chars(digits, end, real_, std::chars_format::general, 17).ptr);
                return;
            case kind::address:
                message.append("0x").append(
                    digits, std::to_chars(digits, end, reinterpret_cast<std::uintptr_t>(address_), 16).ptr);
                return;
            case kind::text:
                excerpt(text_, 0, longest_text).append_to(message);
        }
    }

private:
    static constexpr std::size_t longest_text = 1000;

    enum class kind : std::uint8_t { letter, integer, unsigned_integer, real, address, text } kind_;
    union {
        std::uint64_t integer_;
        double real_;
        const void* address_;
        std::string_view text_;
    };
};

inline namespace RW_ISA {

/// Appends text whose "{}" are replaced by the next values.
[[gnu::cold]] inline void append_filled(std::string& message, std::string_view text,
                                        std::initializer_list<message_value> values) {
    for (const message_value& value : values) {
        const auto hole = text.find("{}");
        if (hole == std::string_view::npos) break;
        value.append_to(message.append(text.substr(0, hole)));
        text.remove_prefix(hole + 2);
    }
    message.append(text);
}

/// Replaces each "{}" by the next argument: a number, text or an address. (GCC 12 has no std::format.) Calls qualify
/// the name: for std::string_view, newer libraries find std::format too.
template <class... Args>
std::string format(std::string_view text, const Args&... args) {
    std::string result;
    append_filled(result, text, {message_value(args)...});
    return result;
}

[[noreturn, gnu::cold]] inline void fail_with(std::string_view text, std::initializer_list<message_value> values) {
    std::string message = "ropewalk: ";
    append_filled(message, text, values);
    throw error(message);
}

template <class... Args>
[[noreturn, gnu::cold]] void fail(std::string_view text, const Args&... args) {
    fail_with(text, {message_value(args)...});
}

}  // namespace RW_ISA
}  // namespace detail
}  // namespace ropewalk

/// Throws ropewalk::error with the formatted message unless the condition holds.
#define RW_EXPECTS(condition, ...)                               \
    do {                                                         \
        if (!(condition)) ::ropewalk::detail::fail(__VA_ARGS__); \
    } while (false)
