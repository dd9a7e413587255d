#include <ropewalk/policy/registry.hpp>

#include <set>
#include <span>
#include <string>
#include <vector>

#include <ropewalk/encoding.hpp>

#include "support/catch.hpp"
#include "support/effort.hpp"
#include "support/errors.hpp"
#include "support/registry.hpp"

namespace rw = ropewalk;

namespace {

std::vector<rw::Geometry> geometries() {
    std::vector<rw::Geometry> result;
    constexpr double bases[] = {1e4, 5e5, 1e7};
    for (const double base : std::span(bases).first(static_cast<std::size_t>(test::cases(3)))) {
        for (const std::int64_t dim : {2, 64, 80, 128, 512})
            result.push_back({.head_dim = dim, .base = base, .sequence_length = 32768});
    }
    result.push_back({.head_dim = 192, .rotary_dim = 64, .rotary_offset = 128});
    return result;
}

template <class P>
void check_neutral() {
    INFO("policy " << P::name);
    for (const rw::Geometry& g : geometries()) {
        const rw::Encoding plain = rw::make_encoding(g, rw::Default{}), neutral = rw::make_encoding(g, P::neutral());
        CHECK(neutral.steps == plain.steps);
        CHECK(neutral.inv_freq == plain.inv_freq);
        CHECK(neutral.attention_factor == 1);
        CHECK(neutral.softmax_factor == 1);
        CHECK_FALSE(neutral.has_magnitude());
        CHECK_FALSE(neutral.has_axes());
        const rw::Encoding scaled = rw::make_encoding(g, rw::Linear{.factor = 3}, P::neutral());
        CHECK(scaled.steps == rw::make_encoding(g, rw::Linear{.factor = 3}).steps);
    }
}

/// Checks that steps are within 4 units of 2^-64 turn of the policy's formula: alone, after linear and before linear.
template <class P>
void check_frequencies(const test::definition<P>& exact) {
    const rw::Geometry& g = exact.geometry;
    const rw::Linear third{.factor = 3};
    const rw::Encoding alone = rw::make_encoding(g, exact.policy), after = rw::make_encoding(g, third, exact.policy),
                       before = rw::make_encoding(g, exact.policy, third);
    REQUIRE(alone.pairs() == g.pairs());
    double worst = 0;
    for (std::int64_t pair = 0; pair < g.pairs(); ++pair) {
        const auto j = static_cast<std::size_t>(pair);
        const oracle::dd turns = exact.turns(pair);
        worst = std::max(worst, test::step_error(alone.steps[j], turns));
        worst = std::max(worst, test::step_error(after.steps[j], exact.turns(pair, g.theta(pair) / rw::real(3))));
        worst = std::max(worst, test::step_error(before.steps[j], turns / oracle::dd{3}));
        CHECK(alone.inv_freq[j] == Approx(oracle::to_double(turns * oracle::two_pi)).epsilon(3e-16));
    }
    CHECK(worst <= 4);
    CHECK(alone.attention_factor == exact.factor());
    CHECK(before.attention_factor == alone.attention_factor);
    CHECK(after.softmax_factor == alone.softmax_factor);
    CHECK(after.magnitude_rates == alone.magnitude_rates);
}

/// Returns whether two encodings have the same effect.
bool same_effect(const rw::Encoding& a, const rw::Encoding& b) {
    return a.steps == b.steps && a.attention_factor == b.attention_factor && a.softmax_factor == b.softmax_factor &&
           a.magnitude_rates == b.magnitude_rates && a.axis_steps == b.axis_steps &&
           bool(a.draw_positions) == bool(b.draw_positions) && a.stage == b.stage;
}

/// Checks that the description of the example parses to the example.
template <class P>
void check_description(const rw::Geometry& g) {
    const std::string text = rw::describe(test::example_for<P>(g));
    INFO("described as " << text);
    const auto parsed = rw::parse_policies(text);
    REQUIRE(parsed.size() == 1);
    REQUIRE(std::holds_alternative<P>(parsed.front()));
    CHECK(test::same_parameters(std::get<P>(parsed.front()), test::example_for<P>(g)));
    CHECK(same_effect(rw::make_encoding(g, text), rw::make_encoding(g, test::example_for<P>(g))));
    CHECK(rw::make_encoding(g, test::example_for<P>(g)).expression == text);
}

}  // namespace

TEST_CASE("the example of every registered policy parses back, and its steps follow its formula", "[registry]") {
    test::for_each_policy([&]<class P>() {
        static_assert(test::has_example<P>, "a policy needs example(), the parameters of some model");
        INFO("policy " << P::name);
        int fitting = 0;
        for (const rw::Geometry& g : geometries()) {
            INFO("width " << g.width() << ", base " << g.base);
            if (!test::message_of([&] { rw::make_encoding(g, test::example_for<P>(g)); }).empty()) continue;
            check_description<P>(g);
            check_frequencies(test::definition<P>{g, test::example_for<P>(g)});
            ++fitting;
        }
        CHECK(fitting > 0);
    });
}

TEST_CASE("every example except that of default has an effect", "[registry]") {
    const rw::Geometry g{.head_dim = 128, .sequence_length = 32768};
    test::for_each_policy([&]<class P>() {
        INFO("policy " << P::name);
        const bool changes = !same_effect(rw::make_encoding(g, test::example_for<P>(g)), rw::make_encoding(g));
        CHECK(changes == !std::is_same_v<P, rw::Default>);
    });
}

TEST_CASE("neutral parameters equal default bit for bit, for every registered policy that has them", "[registry]") {
    int tested = 0;
    test::for_each_policy([&]<class P>() {
        // Only policies of positions have no neutral parameters.
        static_assert(test::has_neutral<P> || rw::PositionPolicy<P> || rw::PairAxisPolicy<P>,
                      "a policy needs neutral()");
        if constexpr (test::has_neutral<P>) {
            check_neutral<P>();
            ++tested;
        }
    });
    CHECK(tested >= 5);
}

TEST_CASE("every registered policy is valid, with a unique name and unique parameter names", "[registry]") {
    std::set<std::string> names;
    test::for_each_policy([&]<class P>() {
        static_assert(rw::Policy<P> && rw::AnyAxis<P>);
        INFO("policy " << P::name);
        CHECK(names.insert(std::string(P::name)).second);
        CHECK(P::name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") == std::string_view::npos);
        CHECK_FALSE((P::name[0] >= '0' && P::name[0] <= '9'));
        std::set<std::string> parameters;
        std::apply([&](const auto&... each) { (parameters.insert(std::string(each.name)), ...); }, P::parameters);
        CHECK(parameters.size() == std::tuple_size_v<std::remove_cvref_t<decltype(P::parameters)>>);
        CHECK(rw::describe(P{}) == P::name);
        const auto parsed = rw::parse_policies(P::name);
        REQUIRE(parsed.size() == 1);
        CHECK(std::holds_alternative<P>(parsed.front()));
    });
}

TEST_CASE("a policy without a required parameter is refused, with an expression that works", "[registry]") {
    const rw::Geometry g{.head_dim = 128};
    std::set<std::string_view> refused;
    test::for_each_policy([&]<class P>() {
        const std::string message = test::message_of([&] { rw::make_encoding(g, P{}); });
        INFO("policy " << P::name << ", message: '" << message << "'");
        CHECK(test::message_of([&] { rw::make_encoding(g, P::name); }) == message);
        const auto check = [&](const auto& parameter) {
            if (!parameter.required) return;
            refused.insert(P::name);
            CHECK(message.starts_with("ropewalk: " + std::string(P::name) + " needs " + std::string(parameter.name)));
            const std::string example = message.substr(message.find(": write ") + 8);
            CHECK(example.starts_with(std::string(P::name) + ":"));
            CHECK_NOTHROW(rw::make_encoding(g, example));
        };
        std::apply([&](const auto&... each) { (check(each), ...); }, P::parameters);
    });
    CHECK(refused == std::set<std::string_view>{"dynamic", "linear", "mrope", "ntk", "power", "proportional",
                                                "randomized_sorted", "yarn"});
}

TEST_CASE("Default is the first policy and names an encoding without policies", "[registry]") {
    CHECK(std::holds_alternative<rw::Default>(rw::any_policy{}));
    CHECK(rw::make_encoding({.head_dim = 64}).expression == "default");
}
