// A policy as text, in the grammar of expressions.
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

/// "name" or "name:value,key=value": every parameter that differs from its default, the first one bare. Numbers are
/// the shortest that read back as the same value.
template <Policy P>
std::string describe(const P& policy) {
    std::string text(P::name);
    const P defaults{};
    bool bare_possible = true;
    char separator = ':';
    const auto append = [&](const auto& one) {
        if (policy.*one.member != defaults.*one.member) {
            text += separator;
            if (!bare_possible) text.append(one.name).append("=");
            text += detail::describe_value(policy.*one.member);
            separator = ',';
        }
        bare_possible = false;
    };
    std::apply([&](const auto&... each) { (append(each), ...); }, P::parameters);
    return text;
}

}  // namespace ropewalk
