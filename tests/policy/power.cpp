#include <ropewalk/policy/power.hpp>

#include "frequency_error.hpp"
#include "support/catch.hpp"

namespace rw = ropewalk;

TEST_CASE("power multiplies frequency j by (1 − 2j/d)^k", "[power]") {
    SEEDED(numbers);
    const auto draw = [&](const rw::Geometry& g) {
        const double k = numbers.coin() ? numbers.one_of({0.0, 0.1, 0.5, 1.0, 2.0}) : numbers.uniform(0, 4);
        return std::pair{rw::Power{.k = k}, oracle::power(test::plain(g), k)};
    };
    CHECK(test::worst_random_error(numbers, 100, draw) <= 0x1p-55);  // |k · log2(1 − 2j/d)| <= 32
}

TEST_CASE("power keeps the first frequency and slows the last one most", "[power]") {
    const rw::Geometry g{.head_dim = 128};
    const rw::Power policy{.k = 0.5};
    CHECK(policy(g.theta(0), 0, g) == g.theta(0));
    CHECK(static_cast<double>(policy(g.theta(63), 63, g) / g.theta(63)) == Approx(0.125).epsilon(1e-14));  // (1/64)^0.5
}
