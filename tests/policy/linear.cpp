#include <ropewalk/policy/linear.hpp>

#include <limits>

#include "support/catch.hpp"
#include "support/effort.hpp"
#include "support/encodings.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;

TEST_CASE("linear divides every frequency by the factor", "[linear]") {
    SEEDED(numbers);
    double worst = 0;
    for (std::int64_t i = 0; i < test::cases(200); ++i) {
        const rw::Geometry g{.head_dim = 2 * numbers.integer(1, 256), .base = test::random_base(numbers)};
        const double factor = numbers.logarithmic(0.01, 1000);
        const auto exact = oracle::linear(oracle::plain(g.base, g.width()), factor);
        worst = std::max(worst, test::worst_frequency_error(rw::Linear{.factor = factor}, g, exact));
    }
    CHECK(worst <= 0x1p-58);
}

TEST_CASE("linear refuses factors that are not positive numbers", "[linear]") {
    const auto validate = [](double factor) { rw::Linear{.factor = factor}.validate({}); };
    CHECK_NOTHROW(validate(0.5));
    CHECK_REFUSED(validate(0), "linear", "factor", "got 0");
    CHECK_REFUSED(validate(-8), "linear", "factor", "got -8");
    CHECK_REFUSED(validate(std::numeric_limits<double>::quiet_NaN()), "linear", "factor", "nan");
    CHECK_REFUSED(validate(std::numeric_limits<double>::infinity()), "linear", "factor", "inf");
}
