// Parser of policy expressions: linear:8, linear:4|truncated:4096, mrope:[16,24,24],interleaved=true.
#pragma once

#include <array>
#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "ropewalk/core/suggestion.hpp"
#include "ropewalk/policy/describe.hpp"
#include "ropewalk/policy/registry.hpp"

namespace ropewalk {

namespace detail {

/// Parses an expression from left to right. Every error shows the expression with a mark under the wrong character.
/// `Variant` is the variant of all policies.
template <class Variant>
class expression_reader {
public:
    explicit expression_reader(std::string_view text) : text_(text) {}

    std::vector<Variant> read() {
        std::vector<Variant> policies;
        do {
            policies.push_back(read_policy());
        } while (accept('|'));
        if (at_ < text_.size()) fail_here("expected '|', ',' or the end");
        return policies;
    }

private:
    /// The names of all policies.
    static constexpr auto names = []<class... P>(std::variant<P...>*) {
        return std::array<std::string_view, sizeof...(P)>{P::name...};
    }(static_cast<Variant*>(nullptr));

    Variant read_policy() {
        const std::size_t start = at_;
        const std::string_view name = read_name();
        Variant policy;
        if (!select<0>(name, policy)) {
            at_ = start;
            if (name.empty())
                fail_here("expected the name of a policy, got " + quoted_rest(), name_hint(rest(), names));
            fail_here(format("unknown policy '{}'", name), name_hint(name, names));
        }
        if (accept(':')) std::visit([this](auto& selected) { this->read_parameters(selected); }, policy);
        return policy;
    }

    template <std::size_t I>
    static bool select(std::string_view name, Variant& policy) {
        if constexpr (I < std::variant_size_v<Variant>) {
            using P = std::variant_alternative_t<I, Variant>;
            if (name != P::name) return select<I + 1>(name, policy);
            policy = P{};
            return true;
        } else {
            return false;
        }
    }

    /// [value][,key=value…]; a value without a key is that of the first parameter.
    template <class P>
    void read_parameters(P& policy) {
        std::array<bool, std::tuple_size_v<std::remove_cvref_t<decltype(P::parameters)>>> given{};
        constexpr auto known =
            std::apply([](const auto&... each) { return std::array<std::string_view, sizeof...(each)>{each.name...}; },
                       P::parameters);
        bool first = true;
        do {
            const std::size_t start = at_;
            const std::string_view name = read_name();
            const bool named = accept('=');
            if (!named && !first) fail_here("expected '=' and a value");
            if (!named) at_ = start;
            if (!assign(policy, name, !named, start, given)) {
                at_ = start;
                if (known.empty()) fail_here(format("policy '{}' has no parameters", P::name));
                fail_here(format("policy '{}' has no parameter '{}'", P::name, name), name_hint(name, known));
            }
            first = false;
        } while (accept(','));
    }

    /// Reads the value of the parameter `name`, or of the first parameter if the value has no key.
    template <class P, std::size_t N>
    bool assign(P& policy, std::string_view name, bool bare, std::size_t start, std::array<bool, N>& given) {
        bool done = false;
        std::size_t index = 0;
        const auto try_parameter = [&](const auto& parameter) {
            const std::size_t i = index++;
            if (done || !(bare || parameter.name == name)) return;
            if (given[i]) {
                at_ = start;
                fail_here(format("parameter '{}' is given twice", parameter.name));
            }
            read_value(policy.*parameter.member);
            given[i] = done = true;
        };
        std::apply([&](const auto&... each) { (try_parameter(each), ...); }, P::parameters);
        return done;
    }

    template <class T>
    void read_value(T& value) {
        const char* const begin = text_.data() + at_;
        const auto [end, problem] = std::from_chars(begin, text_.data() + text_.size(), value);
        if (problem == std::errc::result_out_of_range) fail_here("number out of range");
        if (problem != std::errc{}) fail_here(std::is_integral_v<T> ? "expected a whole number" : "expected a number");
        at_ += static_cast<std::size_t>(end - begin);
    }
    void read_value(bool& value) {
        const std::size_t start = at_;
        const std::string_view word = read_name();
        value = word == "true";
        if (value || word == "false") return;
        at_ = start;
        fail_here("expected true or false");
    }
    /// [value,value,…], possibly empty.
    template <class T>
    void read_value(std::vector<T>& values) {
        values.clear();
        if (!accept('[')) fail_here("expected '[' and a list");
        if (accept(']')) return;
        do {
            read_value(values.emplace_back());
        } while (accept(','));
        if (!accept(']')) fail_here("expected ',' or ']'");
    }
    template <class T>
    void read_value(std::optional<T>& value) {
        T plain{};
        read_value(plain);
        value = plain;
    }

    std::string_view read_name() {
        const std::size_t start = at_;
        while (at_ < text_.size() && (is_letter(text_[at_]) || (at_ > start && text_[at_] >= '0' && text_[at_] <= '9')))
            ++at_;
        return text_.substr(start, at_ - start);
    }
    /// Returns the text up to the next separator, for messages.
    [[nodiscard]] std::string_view rest() const {
        const std::size_t end = text_.find_first_of(":|,=", at_);
        return text_.substr(at_, end == at_ ? 1 : end - at_);
    }
    [[nodiscard]] std::string quoted_rest() const { return rest().empty() ? "the end" : format("'{}'", rest()); }
    static constexpr bool is_letter(char c) { return (c >= 'a' && c <= 'z') || c == '_'; }

    bool accept(char c) {
        if (at_ >= text_.size() || text_[at_] != c) return false;
        ++at_;
        return true;
    }

    [[noreturn]] void fail_here(const std::string& problem, const std::string& hint = {}) const {
        fail("{} at character {}{}\n  {}\n  {}^", problem, at_ + 1, hint, text_, std::string(at_, ' '));
    }

    std::string_view text_;
    std::size_t at_ = 0;
};

}  // namespace detail

/// Returns the policies of an expression, in order. Throws ropewalk::error that marks the wrong character and, for a
/// misspelt name, suggests the nearest one. (A template, so that only its callers compile the parser.)
template <class Variant = any_policy>
std::vector<Variant> parse_policies(std::string_view expression) {
    return detail::expression_reader<Variant>(expression).read();
}

}  // namespace ropewalk
