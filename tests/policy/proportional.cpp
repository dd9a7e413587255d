#include <ropewalk/policy/proportional.hpp>

#include <limits>

#include <ropewalk/encoding.hpp>

#include "support/catch.hpp"
#include "support/effort.hpp"
#include "support/encodings.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;

namespace {

std::int64_t turning(double part, std::int64_t width) {
    const rw::Encoding e = rw::make_encoding({.head_dim = width}, rw::Proportional{.partial_rotary_factor = part});
    std::int64_t count = 0;
    for (std::size_t j = 0; j < e.steps.size(); ++j) {
        if (e.steps[j] != 0) {
            CHECK(static_cast<std::size_t>(count) == j);  // none stands still before one that turns
            ++count;
        }
    }
    return count;
}

}  // namespace

TEST_CASE("proportional agrees with the oracle over geometries and parameters", "[proportional]") {
    SEEDED(numbers);
    double worst = 0;
    for (std::int64_t i = 0; i < test::cases(200); ++i) {
        const rw::Geometry g{.head_dim = 2 * numbers.integer(1, 256), .base = test::random_base(numbers)};
        const std::int64_t count = numbers.integer(0, g.pairs());
        // Half a pair more than the count, so that no rounding decides.
        const double part =
            count == g.pairs() ? 1.0 : (static_cast<double>(count) + 0.5) / static_cast<double>(g.pairs());
        const double factor = numbers.logarithmic(0.5, 64);
        const auto exact =
            oracle::proportional(oracle::plain(g.base, g.width()), static_cast<std::size_t>(count), factor);
        worst = std::max(worst, test::worst_frequency_error(
                                    rw::Proportional{.partial_rotary_factor = part, .factor = factor}, g, exact));
    }
    UNSCOPED_INFO("worst relative error " << worst);
    CHECK(worst <= 0x1p-58);
}

TEST_CASE("proportional turns the first int(f·d/2) pairs", "[proportional]") {
    CHECK(turning(0.25, 512) == 64);  // Gemma-4's full attention
    CHECK(turning(0.25, 128) == 16);
    CHECK(turning(0.5, 6) == 1);
    CHECK(turning(0.34, 6) == 1);
    CHECK(turning(0.33, 6) == 0);
    CHECK(turning(0.999, 128) == 63);
    CHECK(turning(1, 128) == 64);
    CHECK(turning(0, 128) == 0);
}

TEST_CASE("proportional is not a partial width: the exponent is not stretched", "[proportional]") {
    const rw::Encoding ours = rw::make_encoding({.head_dim = 128}, rw::Proportional{.partial_rotary_factor = 0.25});
    const rw::Encoding whole = rw::make_encoding({.head_dim = 128}),
                       narrow = rw::make_encoding({.head_dim = 128, .rotary_dim = 32});
    CHECK(ours.pairs() == 64);
    CHECK(ours.steps[15] == whole.steps[15]);
    CHECK(ours.steps[15] != narrow.steps[15]);
}

TEST_CASE("proportional refuses parameters that make no sense", "[proportional]") {
    constexpr double nan = std::numeric_limits<double>::quiet_NaN();
    const auto validate = [](double part, double factor) { rw::Proportional{part, factor}.validate({}); };
    CHECK_NOTHROW(validate(0, 1));
    CHECK_NOTHROW(validate(1, 8));
    CHECK_REFUSED(validate(-0.25, 1), "proportional", "partial_rotary_factor", "-0.25");
    CHECK_REFUSED(validate(1.25, 1), "proportional", "partial_rotary_factor", "1.25");
    CHECK_REFUSED(validate(nan, 1), "proportional", "partial_rotary_factor", "nan");
    CHECK_REFUSED(validate(0.5, 0), "proportional", "factor must be a positive", "got 0");
    CHECK_REFUSED(validate(0.5, -2), "proportional", "factor must be a positive", "got -2");
    CHECK_REFUSED(validate(0.5, nan), "proportional", "factor must be a positive", "nan");
    CHECK_REFUSED(validate(0.5, std::numeric_limits<double>::infinity()), "proportional", "inf");
}
