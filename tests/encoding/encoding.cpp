#include <ropewalk/encoding.hpp>

#include <memory>
#include <string>

#include "support/catch.hpp"
#include "support/effort.hpp"
#include "support/encodings.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;

namespace {
const rw::Geometry llama{.head_dim = 128};

/// A policy with a negative frequency.
struct Backwards {
    static constexpr std::string_view name = "backwards";
    static constexpr std::tuple<> parameters{};
    constexpr void validate(const rw::Geometry& /*geometry*/) const {}
    constexpr rw::real operator()(const rw::real& theta, std::int64_t pair, const rw::Geometry& /*geometry*/) const {
        return pair == 3 ? -theta : theta;
    }
};
}  // namespace

TEST_CASE("steps are within 4 units of 2^-64 turn, for all policies, bases and widths", "[encoding]") {
    SEEDED(numbers);
    double worst = 0;
    for (std::int64_t i = 0; i < test::cases(400); ++i) {
        const rw::Geometry g{.head_dim = 2 * numbers.integer(1, 256), .base = test::random_base(numbers)};
        const test::twin t = test::random_twin(numbers, g);
        INFO(t.ours.expression << ", base " << g.base << ", width " << g.width());
        const double error = test::worst_step_error(t);
        CHECK(error <= 4);
        worst = std::max(worst, error);
    }
    UNSCOPED_INFO("worst step error " << worst << " units");
    CHECK(worst > 0);
}

TEST_CASE("a chain whose frequencies exceed one turn per token in between keeps its precision", "[encoding]") {
    for (const double factor : {0.1, 0.01, 1e-3, 1e-6}) {
        const auto between = oracle::linear(oracle::plain(llama.base, 128), factor);
        const test::twin t{rw::make_encoding(llama, rw::Linear{.factor = factor}, rw::Linear{.factor = 8 / factor}),
                           oracle::encode(oracle::linear(between, 8 / factor))};
        INFO("factor " << factor);
        CHECK(test::worst_step_error(t) <= 4);
    }
}

TEST_CASE("inv_freq is the frequency after every policy", "[encoding]") {
    const rw::Encoding e = rw::make_encoding(llama, rw::Linear{.factor = 8});
    const auto exact = oracle::linear(oracle::plain(10000, 128), 8);
    REQUIRE(e.pairs() == 64);
    for (std::size_t j = 0; j < 64; ++j) CHECK(e.inv_freq[j] == Approx(oracle::to_double(exact[j])).epsilon(3e-16));
}

TEST_CASE("an encoding has the geometry and the expression of its policies", "[encoding]") {
    const rw::Encoding e =
        rw::make_encoding({.head_dim = 96, .rotary_dim = 32, .base = 5e5}, "linear:4|xpos:length=1000");
    CHECK(e.expression == "linear:4|xpos:length=1000");
    CHECK(e.geometry.rotary_dim == 32);
    CHECK(e.pairs() == 16);
    CHECK(e.magnitude_rates.size() == 16);
    CHECK(e.centre == 500);
    CHECK(rw::make_encoding(e.geometry, e.expression.c_str()).steps == e.steps);
}

TEST_CASE("make_encoding rejects an invalid geometry and a negative frequency", "[encoding]") {
    CHECK_REFUSED(rw::make_encoding({.head_dim = 127}), "even", "127");
    CHECK_REFUSED(rw::make_encoding({.head_dim = 64, .rotary_dim = 128}, "linear:8"), "128", "64");
    CHECK_REFUSED(rw::make_encoding(llama, Backwards{}), "backwards", "pair 3", "-0.64938");
}

TEST_CASE("two policies conflict if both set positions, or both magnitudes", "[encoding]") {
    const rw::Randomized positions{.length = 16};
    CHECK_REFUSED(rw::make_encoding(llama, positions | rw::RandomizedSorted{.range = 100}),
                  "randomized_sorted conflicts with 'randomized:16': both set the positions");
    CHECK_REFUSED(rw::make_encoding(llama, positions | positions), "randomized conflicts");
    CHECK_REFUSED(rw::make_encoding(llama, rw::XPos{} | rw::Linear{.factor = 2} | rw::XPos{.gamma = 1}),
                  "xpos conflicts with 'xpos|linear:2': both set the magnitude");
}

TEST_CASE("attention factors multiply", "[encoding]") {
    CHECK(rw::make_encoding(llama).attention_factor == 1);
    CHECK(rw::make_encoding(llama, test::Constant{1.5}, test::Constant{2}).attention_factor == 3);
    const rw::Encoding e = rw::make_encoding(llama, rw::Linear{.factor = 2} | test::Constant{1.25});
    CHECK(e.attention_factor == 1.25);
    CHECK(e.expression == "linear:2|constant:1.25");
    CHECK(e.steps == rw::make_encoding(llama, "linear:2").steps);
}

TEST_CASE("copies of an encoding draw the positions of its policy", "[encoding]") {
    const auto drawn = [](const rw::Encoding& e) {
        std::vector<rw::fixed_position> numbers(16);
        e.draw_positions(3, numbers);
        std::vector<std::int64_t> values;
        for (const rw::fixed_position& number : numbers) values.push_back(number.value);
        return values;
    };
    const rw::Randomized policy{.length = 16, .seed = 5};
    std::vector<rw::fixed_position> direct(16);
    policy.draw_positions(3, direct);
    auto first = std::make_unique<rw::Encoding>(rw::make_encoding(llama, policy));
    rw::Encoding copy = *first, other = rw::make_encoding(llama), moved = std::move(*first);
    CHECK_FALSE(bool(other.draw_positions));
    first.reset();
    other = copy;
    copy = rw::make_encoding(llama);
    CHECK_FALSE(bool(copy.draw_positions));
    REQUIRE(drawn(other).size() == 16);
    CHECK(drawn(other) == drawn(moved));
    for (std::size_t i = 0; i < 16; ++i) CHECK(drawn(other)[i] == direct[i].value);
    moved = rw::make_encoding(llama, rw::RandomizedSorted{.range = 99});
    CHECK(drawn(moved) != drawn(other));
}

TEST_CASE("drawn_tokens is the length of the policy, else that of the geometry, else 0", "[encoding]") {
    rw::Geometry g = llama;
    CHECK(rw::make_encoding(g, rw::Randomized{}).drawn_tokens == 0);
    g.sequence_length = 100;
    CHECK(rw::make_encoding(g, rw::Randomized{}).drawn_tokens == 100);
    CHECK(rw::make_encoding(g, rw::Randomized{.length = 7}).drawn_tokens == 7);
    CHECK(rw::make_encoding(g, rw::RandomizedSorted{.range = 1000}).drawn_tokens == 100);
}

TEST_CASE("relative positions are exact in the phases of an encoding", "[encoding]") {
    SEEDED(numbers);
    const test::twin t = test::random_twin(numbers, llama);
    for (const std::uint64_t step : t.ours.steps) {
        const std::int64_t m = numbers.integer(-(std::int64_t{1} << 40), std::int64_t{1} << 40),
                           n = numbers.integer(0, 1 << 30);
        CHECK(rw::phase(m, step) - rw::phase(n, step) == rw::phase(m - n, step));
    }
}

TEST_CASE("policies come as an expression of any text type, a list or arguments", "[encoding]") {
    const std::string text = "linear:4|power:0.5";
    const std::vector<rw::any_policy> list{rw::Linear{.factor = 4}, rw::Power{.k = 0.5}};
    const rw::Encoding expected = rw::make_encoding(llama, rw::Linear{.factor = 4}, rw::Power{.k = 0.5});
    CHECK(rw::make_encoding(llama, "linear:4|power:0.5").steps == expected.steps);
    CHECK(rw::make_encoding(llama, std::string_view(text)).steps == expected.steps);
    CHECK(rw::make_encoding(llama, text).steps == expected.steps);
    CHECK(rw::make_encoding(llama, text.c_str()).steps == expected.steps);
    CHECK(rw::make_encoding(llama, list).steps == expected.steps);
    CHECK(rw::make_encoding(llama, list).expression == text);
}
