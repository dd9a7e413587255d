#include <ropewalk/encoding.hpp>

#include "support/catch.hpp"

namespace rw = ropewalk;

namespace {

/// Halves the frequencies beyond `original_length`, like a minimal LongRoPE.
struct Halved {
    std::int64_t original_length = 4096;

    static constexpr std::string_view name = "halved";
    static constexpr auto parameters =
        std::tuple{rw::parameter<Halved, std::int64_t>{"original_length", &Halved::original_length}};
    constexpr void validate(const rw::Geometry& /*geometry*/) const {}
    constexpr rw::real operator()(const rw::real& theta, std::int64_t /*pair*/, const rw::Geometry& g) const {
        return stage(g) == 0 ? theta : theta.scaled(-1);
    }
    [[nodiscard]] constexpr std::uint64_t stage(const rw::Geometry& g) const {
        return g.sequence_length > original_length ? 1 : 0;
    }
};

rw::Encoding at_length(std::int64_t length) {
    return rw::make_encoding({.head_dim = 64, .sequence_length = length}, Halved{});
}

}  // namespace

static_assert(rw::StagePolicy<Halved> && rw::FrequencyPolicy<Halved> && !rw::StagePolicy<rw::Linear>);

TEST_CASE("the stage changes exactly where the frequencies change", "[stage]") {
    CHECK(at_length(0).stage == at_length(4096).stage);
    CHECK(at_length(0).steps == at_length(4096).steps);
    CHECK(at_length(4097).stage != at_length(4096).stage);
    CHECK(at_length(4097).steps != at_length(4096).steps);
    CHECK(at_length(4097).stage == at_length(100000).stage);
}

TEST_CASE("stages of several policies are distinct", "[stage]") {
    const auto both = [](std::int64_t length) {
        return rw::make_encoding({.head_dim = 64, .sequence_length = length}, Halved{1000}, Halved{2000}).stage;
    };
    CHECK(both(1000) != both(1001));
    CHECK(both(1001) != both(2001));
    CHECK(both(1000) != both(2001));
    CHECK(rw::make_encoding({.head_dim = 64, .sequence_length = 1 << 20}, rw::Linear{.factor = 8}).stage == 0);
}
