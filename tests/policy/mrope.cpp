#include <ropewalk/policy/mrope.hpp>

#include <string>
#include <vector>

#include <ropewalk/encoding.hpp>

#include "support/catch.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;

namespace {

/// Returns one letter per pair: t, h or w.
std::string axes(const rw::MRope& policy, std::int64_t width) {
    const rw::Geometry g{.head_dim = width};
    std::string text;
    for (std::int64_t j = 0; j < g.pairs(); ++j) text += "thw"[policy.axis(j, g)];
    return text;
}
std::string times(const char* text, int count) {
    std::string result;
    while (count-- > 0) result += text;
    return result;
}

}  // namespace

TEST_CASE("chunked sections: the first pairs use t, the next h, the last w", "[mrope]") {
    CHECK(axes({.sections = {16, 24, 24}}, 128) == times("t", 16) + times("h", 24) + times("w", 24));  // Qwen2-VL
    CHECK(axes({.sections = {1, 0, 3}}, 8) == "twww");
    CHECK(axes({.sections = {0, 0, 1}}, 2) == "w");
    CHECK(axes({}, 8) == "tttt");
}

TEST_CASE("interleaved sections: t, h and w alternate until the sections are full", "[mrope]") {
    CHECK(axes({.sections = {24, 20, 20}, .interleaved = true}, 128) == times("thw", 20) + "tttt");  // Qwen3-VL
    CHECK(axes({.sections = {4, 2, 1}, .interleaved = true}, 14) == "thwthtt");
    CHECK(axes({.sections = {3, 0, 0}, .interleaved = true}, 6) == "ttt");
}

TEST_CASE("axis_steps of mrope holds every step on the axis of its pair", "[mrope]") {
    const rw::MRope policy{.sections = {2, 1, 1}};
    const rw::Encoding e = rw::make_encoding({.head_dim = 8}, rw::Linear{.factor = 2}, policy);
    REQUIRE(e.has_axes());
    REQUIRE(e.axis_steps.size() == 12);
    for (std::size_t a = 0; a < 3; ++a) {
        for (std::size_t j = 0; j < 4; ++j) {
            const bool uses = static_cast<std::size_t>(policy.axis(static_cast<std::int64_t>(j), {})) == a;
            CHECK(e.axis_steps[a * 4 + j] == (uses ? e.steps[j] : 0));
        }
    }
    CHECK(e.steps == rw::make_encoding({.head_dim = 8}, rw::Linear{.factor = 2}).steps);
    CHECK(rw::make_encoding({.head_dim = 8}, policy, rw::Linear{.factor = 2}).axis_steps == e.axis_steps);
}

TEST_CASE("sections give tokens three positions even if every pair uses t", "[mrope]") {
    const rw::Geometry g{.head_dim = 8};
    const std::vector<rw::MRope> all_t{{.sections = {4, 0, 0}}, {.sections = {4, 0, 0}, .interleaved = true}};
    for (const rw::MRope& policy : all_t) {
        REQUIRE(axes(policy, 8) == "tttt");
        const rw::Encoding e = rw::make_encoding(g, policy);
        REQUIRE(e.has_axes());
        for (std::size_t i = 0; i < 12; ++i) CHECK(e.axis_steps[i] == (i < 4 ? e.steps[i] : 0));
        // Policies that need one position per token drop the shared axis.
        CHECK_FALSE(rw::make_encoding(g, policy, rw::XPos{}).has_axes());
        CHECK_FALSE(rw::make_encoding(g, rw::Randomized{.length = 16}, policy).has_axes());
        CHECK(rw::make_encoding(g, policy, policy).has_axes());
        CHECK(rw::make_encoding(g, policy, rw::MRope{.sections = {2, 1, 1}}).axis_steps ==
              rw::make_encoding(g, rw::MRope{.sections = {2, 1, 1}}).axis_steps);
    }
    CHECK(rw::make_encoding({.head_dim = 2}, rw::MRope{.sections = {1, 0, 0}}).has_axes());
    CHECK(rw::make_encoding({.head_dim = 2}, rw::MRope{.sections = {0, 1, 0}, .interleaved = true}).has_axes());
}

TEST_CASE("mrope conflicts with magnitudes, drawn positions and a second mrope", "[mrope]") {
    const rw::Geometry g{.head_dim = 8};
    const rw::MRope policy{.sections = {2, 1, 1}};
    CHECK_REFUSED(rw::make_encoding(g, policy, rw::XPos{}), "mrope:[2,1,1]|xpos", "magnitudes");
    CHECK_REFUSED(rw::make_encoding(g, rw::XPos{}, policy), "xpos|mrope:[2,1,1]", "magnitudes");
    CHECK_REFUSED(rw::make_encoding(g, policy, rw::Randomized{.length = 16}), "randomized:16", "drawn positions");
    CHECK_REFUSED(rw::make_encoding(g, policy, policy), "mrope conflicts with 'mrope:[2,1,1]'");
}
