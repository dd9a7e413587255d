#include <ropewalk/policy/compose.hpp>

#include <ropewalk/encoding.hpp>

#include "support/catch.hpp"
#include "support/encodings.hpp"

namespace rw = ropewalk;

namespace {
const rw::Geometry llama{.head_dim = 128};
}

TEST_CASE("a | b applies a, then b", "[compose]") {
    const rw::Linear scale{.factor = 4};
    const rw::Truncated cut{.length = 4096};
    const rw::Power curve{.k = 0.5};
    const auto theta = oracle::plain(llama.base, 128);
    const test::twin forward{rw::make_encoding(llama, scale | curve | cut),
                             oracle::encode(oracle::truncated(oracle::power(oracle::linear(theta, 4), 0.5), 4096))};
    const test::twin backward{rw::make_encoding(llama, cut | curve | scale),
                              oracle::encode(oracle::linear(oracle::power(oracle::truncated(theta, 4096), 0.5), 4))};
    CHECK(test::worst_step_error(forward) <= 4);
    CHECK(test::worst_step_error(backward) <= 4);
    CHECK(forward.ours.steps != backward.ours.steps);
}

TEST_CASE("every way to compose policies gives the same encoding", "[compose]") {
    constexpr rw::Linear a{.factor = 4};
    constexpr rw::Power b{.k = 0.1};
    constexpr rw::Truncated c{.length = 4096.0};
    const rw::Encoding expected = rw::make_encoding(llama, a, b, c);
    CHECK(rw::make_encoding(llama, a | b | c).steps == expected.steps);
    CHECK(rw::make_encoding(llama, a | (b | c)).steps == expected.steps);
    CHECK(rw::make_encoding(llama, (a | b) | c).steps == expected.steps);
    CHECK(rw::make_encoding(llama, "linear:4|power:0.1|truncated:4096").steps == expected.steps);
    const std::vector<rw::any_policy> list{a, b, c};
    CHECK(rw::make_encoding(llama, std::span<const rw::any_policy>(list)).steps == expected.steps);
    CHECK(expected.expression == "linear:4|power:0.1|truncated:4096");
    CHECK(std::tuple_size_v<decltype(((a | b) | (c | a)).policies)> == 4);
}

TEST_CASE("policies of different axes compose in either order", "[compose]") {
    const rw::XPos magnitudes{.length = 8192};
    const rw::Linear scale{.factor = 2};
    const rw::Randomized positions{.length = 64};
    const rw::Encoding forward = rw::make_encoding(llama, magnitudes | scale | positions),
                       backward = rw::make_encoding(llama, positions | scale | magnitudes);
    CHECK(forward.steps == backward.steps);
    CHECK(forward.magnitude_rates == backward.magnitude_rates);
    CHECK(forward.centre == 4096);
    CHECK(forward.drawn_tokens == 64);
    CHECK(backward.drawn_tokens == 64);
}
