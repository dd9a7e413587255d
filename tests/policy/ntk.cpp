#include <ropewalk/policy/ntk.hpp>

#include <limits>

#include "support/catch.hpp"
#include "support/effort.hpp"
#include "support/encodings.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;

TEST_CASE("ntk is plain RoPE with the base b·alpha^(d/(d−2))", "[ntk]") {
    SEEDED(numbers);
    double worst = 0;
    for (std::int64_t i = 0; i < test::cases(200); ++i) {
        const rw::Geometry g{.head_dim = 2 * numbers.integer(1, 256), .base = test::random_base(numbers)};
        const double alpha = numbers.logarithmic(0.1, 1000);
        worst = std::max(
            worst, test::worst_frequency_error(rw::Ntk{.alpha = alpha}, g, oracle::ntk(g.base, g.width(), {alpha})));
    }
    UNSCOPED_INFO("worst relative error " << worst);
    CHECK(worst <= 0x1p-56);
}

TEST_CASE("ntk leaves pair 0 as it is and divides the last one by exactly alpha", "[ntk]") {
    for (const std::int64_t width : {4, 64, 80, 128, 512}) {
        for (const double base : {1e4, 5e5, 1e7}) {
            const rw::Geometry g{.head_dim = width, .base = base};
            const std::int64_t last = g.pairs() - 1;
            const rw::Ntk policy{.alpha = 8};
            INFO("width " << width << ", base " << base);
            CHECK(policy(g.theta(0), 0, g) == g.theta(0));
            CHECK(policy(g.theta(last), last, g) == g.theta(last) / rw::real(8));
        }
    }
    const rw::Geometry one{.head_dim = 2};
    CHECK(rw::Ntk{.alpha = 8}(one.theta(0), 0, one) == rw::real(1));
}

TEST_CASE("ntk refuses an alpha that is no positive number", "[ntk]") {
    const auto validate = [](double alpha) { rw::Ntk{.alpha = alpha}.validate({}); };
    CHECK_NOTHROW(validate(0.5));
    CHECK_REFUSED(validate(0), "ntk", "alpha", "got 0");
    CHECK_REFUSED(validate(-8), "ntk", "alpha", "got -8");
    CHECK_REFUSED(validate(std::numeric_limits<double>::quiet_NaN()), "ntk", "alpha", "nan");
    CHECK_REFUSED(validate(std::numeric_limits<double>::infinity()), "ntk", "alpha", "inf");
}
