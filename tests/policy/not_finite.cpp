// Infinite and NaN parameters. Also compiled with -ffast-math, which assumes that they do not occur.

#include <ropewalk/encoding.hpp>

#include <bit>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "support/catch.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;

namespace not_finite_tests {
namespace {

constexpr rw::Geometry head{.head_dim = 64};
constexpr std::uint64_t infinity = 0x7ff0000000000000U, minus_infinity = 0xfff0000000000000U,
                        not_a_number = 0x7ff8000000000000U;

/// Replaces the numeric parameter `index` of the policy by a value. Returns its name, or "" if there are fewer.
template <class P>
std::string_view replace_number(P& policy, int index, double value) {
    std::string_view name;
    const auto try_parameter = [&](const auto& parameter) {
        auto& member = policy.*parameter.member;
        using T = std::remove_cvref_t<decltype(member)>;
        constexpr bool list = std::is_same_v<T, std::vector<double>>;
        if constexpr (list || std::is_same_v<T, double> || std::is_same_v<T, std::optional<double>>) {
            if (index-- != 0) return;
            name = parameter.name;
            if constexpr (list) {
                member.assign(static_cast<std::size_t>(head.pairs()), 1.0);
                member.back() = value;
            } else {
                member = value;
            }
        }
    };
    std::apply([&](const auto&... each) { (try_parameter(each), ...); }, P::parameters);
    return name;
}

/// Checks every numeric parameter of the policy and returns their number.
template <class P>
int count_refused(const P& example, std::uint64_t bits) {
    for (int index = 0;; ++index) {
        P policy = example;
        const std::string_view name = replace_number(policy, index, std::bit_cast<double>(bits));
        if (name.empty()) return index;
        if (name == "scale_base" && bits == infinity) continue;  // neutral: constant magnitudes
        INFO(P::name << ' ' << name << ' ' << std::hex << bits);
        const std::string message = test::message_of([&] { (void)rw::make_encoding(head, policy); });
        CHECK(message.find(P::name) != std::string::npos);
    }
}

template <std::size_t... I>
int count_all(std::uint64_t bits, std::index_sequence<I...>) {
    return (count_refused(std::variant_alternative_t<I, rw::any_policy>::example(), bits) + ...);
}

}  // namespace

TEST_CASE("every policy rejects infinite and NaN parameters", "[not_finite]") {
    for (const std::uint64_t bits : {infinity, minus_infinity, not_a_number, not_a_number | 0x8000000000000000U}) {
        const int refused = count_all(bits, std::make_index_sequence<std::variant_size_v<rw::any_policy>>{});
        CHECK(refused > 20);
    }
}

TEST_CASE("expressions with infinite and NaN parameters are rejected", "[not_finite]") {
    for (const char* const expression :
         {"linear:nan", "linear:inf", "power:nan", "yarn:nan,original_length=4096",
          "yarn:4,original_length=4096,beta_slow=nan", "yarn:4,original_length=4096,attention_factor=inf", "xpos:nan",
          "xpos:512,gamma=inf", "truncated:nan", "truncated:a=0,b=nan,rho=0", "randomized:16,epsilon=nan",
          "llama3:8,low_freq_factor=nan", "longrope:[],factor=nan"}) {
        INFO(expression);
        CHECK_REFUSED(rw::make_encoding(head, expression), "got");
    }
    CHECK(rw::make_encoding(head, "xpos:inf").steps == rw::make_encoding(head).steps);
}

TEST_CASE("a geometry with an infinite or NaN base is rejected", "[not_finite]") {
    for (const std::uint64_t bits : {infinity, minus_infinity, not_a_number}) {
        CHECK_REFUSED(rw::make_encoding({.head_dim = 64, .base = std::bit_cast<double>(bits)}), "base", "finite");
    }
}

TEST_CASE("an attention factor is rejected unless it and its inverse are normal floats", "[not_finite]") {
    const auto with = [](double factor) {
        return rw::make_encoding(head, rw::Yarn{.factor = 1, .attention_factor_given = factor});
    };
    for (const double factor : {1e300, 1e-300, 1e39, 1e-39, 0x1.1p126, 0x1.fp-127}) {
        INFO(factor);
        CHECK_REFUSED(with(factor), "yarn", "attention factor", "float");
    }
    for (const double factor : {0x1p126, 0x1p-126, 1.0}) CHECK(with(factor).attention_factor == factor);
    CHECK_REFUSED(rw::make_encoding(head, rw::Yarn{.factor = 1, .attention_factor_given = 0x1p100} |
                                              rw::LongRope{.attention_factor_given = 0x1p100}),
                  "attention factor", "1.6069380442589903e+60");
}

}  // namespace not_finite_tests
