// Conversion of a policy to text, in the grammar of expressions.
#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "ropewalk/policy/concepts.hpp"

namespace ropewalk {

namespace detail {

template <class T>
std::string describe_value(const T& value) {
    char buffer[32];
    const auto result = std::to_chars(buffer, buffer + sizeof buffer, value);
    return {buffer, result.ptr};
}
inline std::string describe_value(bool value) { return value ? "true" : "false"; }
template <class T>
std::string describe_value(const std::optional<T>& value) {
    return describe_value(*value);
}
template <class T>
std::string describe_value(const std::vector<T>& values) {
    std::string text = "[";
    for (const T& value : values) text.append(text.size() == 1 ? "" : ",").append(describe_value(value));
    return text + "]";
}

}  // namespace detail

/// Returns "name" or "name:value,key=value", with every parameter that differs from its default; the first one has no
/// key. Numbers are the shortest that read back as the same value.
template <Policy P>
std::string describe(const P& policy) {
    std::string text(P::name);
    const P defaults{};
    bool first = true;
    char separator = ':';
    const auto append = [&](const auto& parameter) {
        if (policy.*parameter.member != defaults.*parameter.member) {
            text += separator;
            if (!first) text.append(parameter.name).append("=");
            text += detail::describe_value(policy.*parameter.member);
            separator = ',';
        }
        first = false;
    };
    std::apply([&](const auto&... each) { (append(each), ...); }, P::parameters);
    return text;
}

namespace detail {

/// Throws that a policy lacks the trained context length, with an expression that states one.
template <Policy P>
[[noreturn]] void fail_without_original_length(P policy) {
    policy.original_length = 4096;
    fail("{} needs original_length, the trained context length: write {}", P::name, describe(policy));
}

}  // namespace detail

}  // namespace ropewalk
