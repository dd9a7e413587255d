// Conversion of a policy to text, in the grammar of expressions.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "ropewalk/policy/fields.hpp"

namespace ropewalk {

namespace detail {

/// The name of a policy and the fields that differ from their defaults.
RW_COLD inline std::string describe_fields(std::string_view name, std::span<const field> fields,
                                           std::span<const field> defaults) {
    std::string text(name);
    char separator = ':';
    for (std::size_t i = 0; i < fields.size(); ++i) {
        const field& each = fields[i];
        if (each.type->equal(each.value, defaults[i].value)) continue;
        text += separator;
        if (i != 0) text.append(each.name) += '=';
        each.type->describe(text, each.value);
        separator = ',';
    }
    return text;
}

}  // namespace detail

/// Returns "name" or "name:value,key=value", with every parameter that differs from its default; the first one has no
/// key. Numbers are the shortest that read back as the same value.
template <Policy P>
std::string describe(const P& policy) {
    const P defaults{};
    return detail::describe_fields(P::name, detail::fields_of(policy), detail::fields_of(defaults));
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
