#include <ropewalk/policy/llama3.hpp>

#include <cmath>
#include <limits>

#include "support/catch.hpp"
#include "support/effort.hpp"
#include "support/encodings.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;

TEST_CASE("llama3 agrees with the oracle over geometries and parameters", "[llama3]") {
    SEEDED(numbers);
    double worst = 0;
    for (std::int64_t i = 0; i < test::cases(300); ++i) {
        const rw::Geometry g{.head_dim = 2 * numbers.integer(1, 256), .base = test::random_base(numbers)};
        oracle::bands b{.factor = numbers.logarithmic(0.5, 64), .original = numbers.integer(64, 1 << 17)};
        if (numbers.coin()) {
            b.low = numbers.logarithmic(0.1, 10);
            b.high = b.low * numbers.logarithmic(1.1, 20);
        }
        const rw::Llama3 policy{b.factor, b.low, b.high, b.original};
        INFO("width " << g.width() << ", base " << g.base << ", " << rw::describe(policy));
        const double error =
            test::worst_frequency_error(policy, g, oracle::llama3(oracle::plain(g.base, g.width()), b));
        CHECK(error <= 0x1p-53);
        worst = std::max(worst, error);
    }
    UNSCOPED_INFO("worst relative error " << worst);
    CHECK(worst > 0);
}

TEST_CASE("llama3 keeps fast pairs, divides slow ones and joins the two without a step", "[llama3]") {
    const rw::Geometry g{.head_dim = 128, .base = 500000};
    const rw::Llama3 policy{};  // Llama 3.1
    int kept = 0, divided = 0;
    for (std::int64_t j = 0; j < 64; ++j) {
        const rw::real theta = g.theta(j), scaled = policy(theta, j, g);
        const double wave = oracle::two_pi.hi / static_cast<double>(theta);
        INFO("pair " << j << ", wavelength " << wave);
        CHECK((scaled == theta) == (wave < 2048));
        CHECK((scaled == theta.scaled(-3)) == (wave > 8192));
        kept += wave < 2048 ? 1 : 0;
        divided += wave > 8192 ? 1 : 0;
    }
    CHECK(kept == 29);
    CHECK(divided == 29);
}

TEST_CASE("llama3 on a bound gives what lies on either side of it", "[llama3]") {
    const rw::Geometry g{.head_dim = 128};
    const rw::Llama3 policy{.factor = 8, .low_freq_factor = 1, .high_freq_factor = 4, .original_length = 8192};
    const double fast = oracle::two_pi.hi / 2048, slow = oracle::two_pi.hi / 8192;
    const auto relative = [&](double theta) {
        return static_cast<double>(policy(rw::real(theta), 0, g) / rw::real(theta));
    };
    for (const double nearby : {1 - 1e-12, 1.0, 1 + 1e-12}) {
        CHECK(relative(fast * nearby) == Approx(1).epsilon(1e-11));
        CHECK(relative(slow * nearby) == Approx(0.125).epsilon(1e-11));
    }
    // Half way between one turn and four: t = 1/2.
    CHECK(relative(slow * 2.5) == Approx(0.5 / 8 + 0.5).epsilon(1e-14));
}

TEST_CASE("llama3 refuses parameters that make no sense", "[llama3]") {
    constexpr double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
    const auto validate = [](const rw::Llama3& policy) { policy.validate({}); };
    CHECK_NOTHROW(validate({}));
    CHECK_REFUSED(validate({.factor = 0}), "llama3", "factor", "got 0");
    CHECK_REFUSED(validate({.factor = nan}), "llama3", "factor", "nan");
    CHECK_REFUSED(validate({.factor = infinity}), "llama3", "factor", "inf");
    CHECK_REFUSED(validate({.low_freq_factor = 0}), "llama3", "low_freq_factor", "4 and 0");
    CHECK_REFUSED(validate({.low_freq_factor = 4}), "llama3", "high_freq_factor > low_freq_factor", "4 and 4");
    CHECK_REFUSED(validate({.low_freq_factor = nan}), "llama3", "low_freq_factor", "nan");
    CHECK_REFUSED(validate({.high_freq_factor = infinity}), "llama3", "high_freq_factor", "inf");
    CHECK_REFUSED(validate({.high_freq_factor = nan}), "llama3", "high_freq_factor", "nan");
    CHECK_REFUSED(validate({.original_length = 0}), "llama3", "original_length", "got 0");
    CHECK_REFUSED(validate({.original_length = -8192}), "llama3", "original_length", "-8192");
}
