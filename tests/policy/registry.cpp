#include <ropewalk/policy/registry.hpp>

#include <set>
#include <string>
#include <vector>

#include <ropewalk/encoding.hpp>

#include "support/catch.hpp"
#include "support/random.hpp"

namespace rw = ropewalk;

namespace {

/// Calls f.template operator()<P>() for every registered policy: a new one is tested without touching this file.
template <class F, std::size_t... I>
void for_each_policy(const F& f, std::index_sequence<I...>) {
    (f.template operator()<std::variant_alternative_t<I, rw::any_policy>>(), ...);
}
template <class F>
void for_each_policy(const F& f) {
    for_each_policy(f, std::make_index_sequence<std::variant_size_v<rw::any_policy>>{});
}

std::vector<rw::Geometry> geometries() {
    std::vector<rw::Geometry> result;
    for (const double base : {1e4, 5e5, 1e7}) {
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
        CHECK_FALSE(neutral.has_decay());
        const rw::Encoding scaled = rw::make_encoding(g, rw::Linear{.factor = 3}, P::neutral());
        CHECK(scaled.steps == rw::make_encoding(g, rw::Linear{.factor = 3}).steps);
    }
}

}  // namespace

TEST_CASE("neutral parameters equal default bit for bit, for every registered policy that has them", "[registry]") {
    int tested = 0;
    for_each_policy([&]<class P>() {
        if constexpr (requires { P::neutral(); }) {
            check_neutral<P>();
            ++tested;
        }
        // Only a policy of the position axis has nothing neutral to offer.
        CHECK((requires { P::neutral(); } || rw::PositionPolicy<P>));
    });
    CHECK(tested >= 5);
}

TEST_CASE("every registered policy is one, with a name and parameter names of its own", "[registry]") {
    std::set<std::string> names;
    for_each_policy([&]<class P>() {
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

TEST_CASE("Default is the first policy and its name is what an encoding without policies is called", "[registry]") {
    CHECK(std::holds_alternative<rw::Default>(rw::any_policy{}));
    CHECK(rw::make_encoding({.head_dim = 64}).expression == "default");
}
