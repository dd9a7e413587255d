// Policy expressions: linear:8, linear:4|truncated:4096, randomized:16384,seed=1, mrope:[16,24,24],interleaved=true.
#pragma once

#include <array>
#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "ropewalk/policy/describe.hpp"
#include "ropewalk/policy/registry.hpp"

namespace ropewalk {

namespace detail {

/// Reads an expression from left to right; every error shows the expression with a mark under the character. Chosen is
/// the variant of all policies.
template <class Chosen>
class expression_reader {
public:
    explicit expression_reader(std::string_view text) : text_(text) {}

    std::vector<Chosen> read() {
        std::vector<Chosen> policies;
        do {
            policies.push_back(read_policy());
        } while (accept('|'));
        if (at_ < text_.size()) fail_here("expected '|', ',' or the end");
        return policies;
    }

private:
    Chosen read_policy() {
        const std::size_t start = at_;
        const std::string_view name = read_name();
        Chosen policy;
        if (!select<0>(name, policy)) {
            at_ = start;
            if (name.empty())
                fail_here(format("expected the name of a policy, got {}, known are {}", rest(), known_policies<0>()));
            fail_here(format("unknown policy '{}', known are {}", name, known_policies<0>()));
        }
        if (accept(':')) {
            std::visit([this](auto& chosen) { this->read_parameters(chosen); }, policy);
        }
        return policy;
    }

    template <std::size_t I>
    static bool select(std::string_view name, Chosen& policy) {
        if constexpr (I < std::variant_size_v<Chosen>) {
            using P = std::variant_alternative_t<I, Chosen>;
            if (name != P::name) return select<I + 1>(name, policy);
            policy = P{};
            return true;
        } else {
            return false;
        }
    }

    template <std::size_t I>
    static std::string known_policies() {
        if constexpr (I < std::variant_size_v<Chosen>) {
            return format(I == 0 ? "{}{}" : ", {}{}", std::variant_alternative_t<I, Chosen>::name,
                          known_policies<I + 1>());
        } else {
            return {};
        }
    }

    /// [value][,key=value…]; a bare value is the first parameter.
    template <class P>
    void read_parameters(P& policy) {
        std::array<bool, std::tuple_size_v<std::remove_cvref_t<decltype(P::parameters)>>> given{};
        bool first = true;
        do {
            const std::size_t start = at_;
            const std::string_view name = read_name();
            const bool named = accept('=');
            if (!named && !first) fail_here("expected '=' and a value");
            if (!named) at_ = start;
            if (!assign(policy, name, !named, start, given)) {
                at_ = start;
                if (!named) fail_here(format("policy '{}' has no parameters", P::name));
                fail_here(format("policy '{}' has no parameter '{}'", P::name, name));
            }
            first = false;
        } while (accept(','));
    }

    /// Reads the value of the parameter `name`, or of the first one where the value is bare.
    template <class P, std::size_t N>
    bool assign(P& policy, std::string_view name, bool bare, std::size_t start, std::array<bool, N>& given) {
        bool done = false;
        std::size_t index = 0;
        const auto try_one = [&](const auto& one) {
            const std::size_t i = index++;
            if (done || !(bare || one.name == name)) return;
            if (given[i]) {
                at_ = start;
                fail_here(format("parameter '{}' is given twice", one.name));
            }
            read_value(policy.*one.member);
            given[i] = done = true;
        };
        std::apply([&](const auto&... each) { (try_one(each), ...); }, P::parameters);
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
    /// [value,value,…], or nothing between the brackets.
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
    /// What stands where a name should, as a message shows it.
    [[nodiscard]] std::string rest() const {
        if (at_ == text_.size()) return "the end";
        const std::size_t end = text_.find_first_of(":|,=", at_);
        return format("'{}'", text_.substr(at_, end == at_ ? 1 : end - at_));
    }
    static constexpr bool is_letter(char c) { return (c >= 'a' && c <= 'z') || c == '_'; }

    bool accept(char c) {
        if (at_ >= text_.size() || text_[at_] != c) return false;
        ++at_;
        return true;
    }

    [[noreturn]] void fail_here(const std::string& problem) const {
        fail("{} at character {}\n  {}\n  {}^", problem, at_ + 1, text_, std::string(at_, ' '));
    }

    std::string_view text_;
    std::size_t at_ = 0;
};

}  // namespace detail

/// The policies of an expression, in order. Throws with a mark under the character that is wrong. A template, so that
/// only who calls it compiles the reading of every parameter.
template <class Chosen = any_policy>
std::vector<Chosen> parse_policies(std::string_view expression) {
    return detail::expression_reader<Chosen>(expression).read();
}

}  // namespace ropewalk
