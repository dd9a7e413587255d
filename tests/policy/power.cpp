#include <ropewalk/policy/power.hpp>

#include <limits>

#include "support/catch.hpp"
#include "support/effort.hpp"
#include "support/encodings.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;

TEST_CASE("power multiplies pair j by (1 − 2j/d)^k", "[power]") {
    SEEDED(numbers);
    double worst = 0;
    for (std::int64_t i = 0; i < test::cases(100); ++i) {
        const rw::Geometry g{.head_dim = 2 * numbers.integer(1, 256), .base = test::random_base(numbers)};
        const double k = numbers.coin() ? numbers.one_of({0.0, 0.1, 0.5, 1.0, 2.0}) : numbers.uniform(0, 4);
        const auto exact = oracle::power(oracle::plain(g.base, g.width()), k);
        worst = std::max(worst, test::worst_frequency_error(rw::Power{.k = k}, g, exact));
    }
    CHECK(worst <= 0x1p-55);  // |k · log2(1 − 2j/d)| <= 32
}

TEST_CASE("power leaves the first pair as it is and slows the last one most", "[power]") {
    const rw::Geometry g{.head_dim = 128};
    const rw::Power policy{.k = 0.5};
    CHECK(policy(g.theta(0), 0, g) == g.theta(0));
    const double last = static_cast<double>(policy(g.theta(63), 63, g) / g.theta(63));
    CHECK(last == Approx(0.125).epsilon(1e-14));  // (1/64)^0.5
}

TEST_CASE("power refuses exponents outside [0, 64]", "[power]") {
    const auto validate = [](double k) { rw::Power{.k = k}.validate({}); };
    CHECK_NOTHROW(validate(64));
    CHECK_REFUSED(validate(-0.5), "power", "k", "-0.5");
    CHECK_REFUSED(validate(65), "power", "k", "65");
    CHECK_REFUSED(validate(std::numeric_limits<double>::quiet_NaN()), "power", "k", "nan");
}
