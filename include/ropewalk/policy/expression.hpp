// Parser of policy expressions: linear:8, linear:4|truncated:4096, mrope:[16,24,24],interleaved=true.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "ropewalk/core/suggestion.hpp"
#include "ropewalk/policy/describe.hpp"
#include "ropewalk/policy/registry.hpp"

namespace ropewalk {

namespace detail {

/// Reads [value][,key=value…] into the fields of a policy; a value without a key is that of the first field.
RW_COLD inline void read_fields(expression_cursor& cursor, std::string_view policy, std::span<const field> fields) {
    std::uint64_t given = 0;
    bool first = true;
    do {
        const std::size_t start = cursor.at;
        const std::string_view name = cursor.read_name();
        const bool named = cursor.accept('=');
        if (!named && !first) cursor.fail_here("expected '=' and a value");
        if (!named) cursor.at = start;
        std::size_t i = 0;
        while (named && i < fields.size() && fields[i].name != name) ++i;
        if (i == fields.size()) {
            cursor.at = start;
            if (fields.empty()) cursor.fail_here(detail::format("policy '{}' has no parameters", policy));
            std::vector<std::string_view> known;
            for (const field& each : fields) known.push_back(each.name);
            cursor.fail_here(detail::format("policy '{}' has no parameter '{}'", policy, cursor.shown(name)),
                             name_hint(name, known));
        }
        if ((given >> i & 1U) != 0) {
            cursor.at = start;
            cursor.fail_here(detail::format("parameter '{}' is given twice", fields[i].name));
        }
        fields[i].type->read(cursor, fields[i].value);
        given |= std::uint64_t{1} << i;
        first = false;
    } while (cursor.accept(','));
}

/// A policy that an expression may name. `read` reads its parameters, after a colon, and passes it on.
struct named_policy {
    std::string_view name;
    void (*read)(expression_cursor& cursor, void* context);
};

/// Reads an expression from left to right. Every error shows the expression with a mark under the wrong character.
RW_COLD inline void read_expression(std::string_view text, std::span<const named_policy> policies, void* context) {
    expression_cursor cursor{text};
    do {
        const std::size_t start = cursor.at;
        const std::string_view name = cursor.read_name();
        const named_policy* found = nullptr;
        for (const named_policy& each : policies) {
            if (each.name == name) found = &each;
        }
        if (found == nullptr) {
            cursor.at = start;
            const std::string_view rest = text.substr(start);
            const std::size_t end = rest.find_first_of(":|,=");
            const std::string_view word = rest.substr(0, end == 0 ? 1 : end);
            std::vector<std::string_view> names;
            for (const named_policy& each : policies) names.push_back(each.name);
            if (!name.empty())
                cursor.fail_here(detail::format("unknown policy '{}'", cursor.shown(name)), name_hint(name, names));
            cursor.fail_here(detail::format("expected the name of a policy, got {}",
                                            word.empty() ? "the end" : "'" + cursor.shown(word) + "'"),
                             name_hint(word, names));
        }
        found->read(cursor, context);
    } while (cursor.accept('|'));
    if (cursor.at < text.size()) cursor.fail_here("expected '|', ',' or the end");
}

/// Reads a policy and passes it to Receive::receive<P>(policy, context).
template <class Receive, Policy P>
RW_COLD void read_policy(expression_cursor& cursor, void* context) {
    P policy{};
    if (cursor.accept(':')) read_fields(cursor, P::name, fields_of(policy));
    Receive::receive(std::move(policy), context);
}

/// The policies of a variant.
template <class Receive, class... P>
std::span<const named_policy> named_policies(std::variant<P...>* /*all*/) {
    static constexpr named_policy all[] = {named_policy{P::name, &read_policy<Receive, P>}...};
    return all;
}

template <class Variant>
struct append_policy {
    template <class P>
    static void receive(P&& policy, void* policies) {
        static_cast<std::vector<Variant>*>(policies)->push_back(std::forward<P>(policy));
    }
};

}  // namespace detail

/// Returns the policies of an expression, in order. Throws ropewalk::error that marks the wrong character and, for a
/// misspelt name, suggests the nearest one. (A template, so that only its callers compile the parser.)
template <class Variant = any_policy>
std::vector<Variant> parse_policies(std::string_view expression) {
    std::vector<Variant> policies;
    detail::read_expression(
        expression, detail::named_policies<detail::append_policy<Variant>>(static_cast<Variant*>(nullptr)), &policies);
    return policies;
}

}  // namespace ropewalk
