#include <ropewalk/policy/proportional.hpp>

#include <ropewalk/encoding.hpp>

#include "frequency_error.hpp"
#include "support/catch.hpp"

namespace rw = ropewalk;

TEST_CASE("proportional agrees with the oracle over geometries and parameters", "[proportional]") {
    SEEDED(numbers);
    const auto draw = [&](const rw::Geometry& g) {
        const std::int64_t count = numbers.integer(0, g.pairs());
        // The extra half pair makes the result independent of rounding.
        const double part =
            count == g.pairs() ? 1.0 : (static_cast<double>(count) + 0.5) / static_cast<double>(g.pairs());
        const double factor = numbers.logarithmic(0.5, 64);
        return std::pair{rw::Proportional{.partial_rotary_factor = part, .factor = factor},
                         oracle::proportional(test::plain(g), static_cast<std::size_t>(count), factor)};
    };
    CHECK(test::worst_random_error(numbers, 200, draw) <= 0x1p-58);
}

TEST_CASE("proportional rotates the first int(f·d/2) pairs", "[proportional]") {
    struct example {
        double part;
        std::int64_t width, rotating;
    };
    for (const auto& [part, width, rotating] : {example{0.25, 512, 64},  // Gemma-4's full attention
                                                {0.25, 128, 16},
                                                {0.5, 6, 1},
                                                {0.34, 6, 1},
                                                {0.33, 6, 0},
                                                {0.999, 128, 63},
                                                {1, 128, 64},
                                                {0, 128, 0}}) {
        const rw::Encoding e = rw::make_encoding({.head_dim = width}, rw::Proportional{.partial_rotary_factor = part});
        for (std::int64_t j = 0; j < e.pairs(); ++j) {
            INFO("part " << part << ", width " << width << ", pair " << j);
            CHECK((e.steps[static_cast<std::size_t>(j)] != 0) == (j < rotating));
        }
    }
}

TEST_CASE("proportional keeps the exponents of the whole head, unlike a partial width", "[proportional]") {
    const rw::Encoding ours = rw::make_encoding({.head_dim = 128}, rw::Proportional{.partial_rotary_factor = 0.25});
    const rw::Encoding whole = rw::make_encoding({.head_dim = 128}),
                       narrow = rw::make_encoding({.head_dim = 128, .rotary_dim = 32});
    CHECK(ours.pairs() == 64);
    CHECK(ours.steps[15] == whole.steps[15]);
    CHECK(ours.steps[15] != narrow.steps[15]);
}
