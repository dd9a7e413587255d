#include <ropewalk/policy/ntk.hpp>

#include "frequency_error.hpp"
#include "support/catch.hpp"

namespace rw = ropewalk;

TEST_CASE("ntk is plain RoPE with the base b·alpha^(d/(d−2))", "[ntk]") {
    SEEDED(numbers);
    const auto draw = [&](const rw::Geometry& g) {
        const double alpha = numbers.logarithmic(0.1, 1000);
        return std::pair{rw::Ntk{.alpha = alpha}, oracle::ntk(g.base, g.width(), {alpha})};
    };
    CHECK(test::worst_random_error(numbers, 200, draw) <= 0x1p-56);
}

TEST_CASE("ntk keeps the first frequency and divides the last one by exactly alpha", "[ntk]") {
    const rw::Ntk policy{.alpha = 8};
    for (const std::int64_t width : {4, 64, 80, 128, 512}) {
        for (const double base : {1e4, 5e5, 1e7}) {
            const rw::Geometry g{.head_dim = width, .base = base};
            const std::int64_t last = g.pairs() - 1;
            INFO("width " << width << ", base " << base);
            CHECK(policy(g.theta(0), 0, g) == g.theta(0));
            CHECK(policy(g.theta(last), last, g) == g.theta(last) / rw::real(8));
        }
    }
    const rw::Geometry single_pair{.head_dim = 2};
    CHECK(policy(single_pair.theta(0), 0, single_pair) == rw::real(1));
}
