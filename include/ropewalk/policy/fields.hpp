// Parameters of a policy without its type, for the parser and the description of expressions.
#pragma once

#include <array>
#include <charconv>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <tuple>
#include <type_traits>
#include <vector>

#include "ropewalk/policy/concepts.hpp"

namespace ropewalk::detail {

/// The text of an expression and the next character to read.
struct expression_cursor {
    static constexpr std::size_t longest_shown = 100;

    std::string_view text;
    std::size_t at = 0;

    bool accept(char c) {
        if (at >= text.size() || text[at] != c) return false;
        ++at;
        return true;
    }
    RW_COLD std::string_view read_name() {
        const auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || c == '_'; };
        const std::size_t start = at;
        while (at < text.size() && (is_letter(text[at]) || (at > start && text[at] >= '0' && text[at] <= '9'))) ++at;
        return text.substr(start, at - start);
    }
    /// A name for a message.
    [[nodiscard]] RW_COLD static std::string shown(std::string_view name) {
        std::string result;
        excerpt(name, 0, longest_shown).append_to(result);
        return result;
    }
    /// Throws that the next character is wrong, with a mark under it. Shows the part of a long expression around it.
    [[noreturn]] RW_COLD void fail_here(std::string_view problem, std::string_view hint = {}) const {
        std::string line;
        const std::size_t column = excerpt(text, at, longest_shown).append_to(line);
        fail("{} at character {}{}\n  {}\n  {}^", problem, at + 1, hint, line, std::string(column, ' '));
    }
};

RW_COLD inline void read_value(expression_cursor& cursor, bool& value) {
    const std::size_t start = cursor.at;
    const std::string_view word = cursor.read_name();
    value = word == "true";
    if (value || word == "false") return;
    cursor.at = start;
    cursor.fail_here("expected true or false");
}
template <class T>
    requires std::is_arithmetic_v<T>
RW_COLD void read_value(expression_cursor& cursor, T& value) {
    const char* const begin = cursor.text.data() + cursor.at;
    const auto [end, problem] = std::from_chars(begin, cursor.text.data() + cursor.text.size(), value);
    if (problem == std::errc::result_out_of_range) cursor.fail_here("number out of range");
    if (problem != std::errc{})
        cursor.fail_here(std::is_integral_v<T> ? "expected a whole number" : "expected a number");
    cursor.at += static_cast<std::size_t>(end - begin);
}
template <class T>
void read_value(expression_cursor& cursor, std::optional<T>& value) {
    read_value(cursor, value.emplace());
}
/// [value,value,…], possibly empty.
template <class T>
RW_COLD void read_value(expression_cursor& cursor, std::vector<T>& values) {
    values.clear();
    if (!cursor.accept('[')) cursor.fail_here("expected '[' and a list");
    if (cursor.accept(']')) return;
    do {
        read_value(cursor, values.emplace_back());
    } while (cursor.accept(','));
    if (!cursor.accept(']')) cursor.fail_here("expected ',' or ']'");
}

inline void describe_value(std::string& text, bool value) { text += value ? "true" : "false"; }
template <class T>
    requires std::is_arithmetic_v<T>
RW_COLD void describe_value(std::string& text, T value) {
    char digits[32];
    text.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
}
template <class T>
void describe_value(std::string& text, const std::optional<T>& value) {
    describe_value(text, *value);
}
template <class T>
RW_COLD void describe_value(std::string& text, const std::vector<T>& values) {
    text += '[';
    for (std::size_t i = 0; i < values.size(); ++i) {
        if (i != 0) text += ',';
        describe_value(text, values[i]);
    }
    text += ']';
}

/// The functions of a type of parameters.
struct field_type {
    void (*read)(expression_cursor& cursor, void* value);
    void (*describe)(std::string& text, const void* value);
    bool (*equal)(const void* a, const void* b);
};

template <class T>
inline constexpr field_type field_type_of{
    [](expression_cursor& cursor, void* value) { read_value(cursor, *static_cast<T*>(value)); },
    [](std::string& text, const void* value) { describe_value(text, *static_cast<const T*>(value)); },
    [](const void* a, const void* b) { return *static_cast<const T*>(a) == *static_cast<const T*>(b); }};

/// One parameter of a policy object.
struct field {
    std::string_view name;
    void* value;
    const field_type* type;
};

/// The parameters of a policy object, which outlives them.
template <Policy P>
RW_COLD auto fields_of(const P& policy) {
    // A caller that writes through the fields passes a policy that is not const.
    auto& object = const_cast<P&>(policy);
    return std::apply(
        [&object](const auto&... each) {
            return std::array<field, sizeof...(each)>{
                field{each.name, &(object.*each.member),
                      &field_type_of<std::remove_reference_t<decltype(object.*each.member)>>}...};
        },
        P::parameters);
}

}  // namespace ropewalk::detail
