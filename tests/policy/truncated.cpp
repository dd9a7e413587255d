#include <ropewalk/policy/truncated.hpp>

#include <array>
#include <limits>

#include <ropewalk/encoding.hpp>

#include "support/catch.hpp"
#include "support/effort.hpp"
#include "support/encodings.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;

namespace {

/// How many pairs are kept, set to the plateau, and set to zero.
std::array<int, 3> counts(const rw::Encoding& encoding, const rw::Encoding& before, double plateau) {
    std::array<int, 3> result{};
    for (std::size_t j = 0; j < encoding.steps.size(); ++j) {
        if (encoding.steps[j] == 0) {
            ++result[2];
        } else if (encoding.steps[j] == before.steps[j]) {
            ++result[0];
        } else if (std::fabs(encoding.inv_freq[j] - plateau) < 1e-15) {
            ++result[1];
        }
    }
    return result;
}

}  // namespace

TEST_CASE("Giraffe's truncation at d = 128 and T = 4096 keeps 46 pairs, sets 14 to rho and 4 to zero", "[truncated]") {
    const rw::Geometry g{.head_dim = 128, .base = 10000.0};
    const rw::Truncated cut{.length = 4096};
    const double rho = oracle::two_pi.hi / (16 * 4096);
    CHECK(counts(rw::make_encoding(g, cut), rw::make_encoding(g), rho) == std::array{46, 14, 4});
    // Behind a scale of 4, as Giraffe's code orders them.
    const rw::Linear scale{.factor = 4};
    CHECK(counts(rw::make_encoding(g, scale | cut), rw::make_encoding(g, scale), rho) == std::array{36, 14, 14});
}

TEST_CASE("truncated agrees with the oracle, by length and by edges", "[truncated]") {
    SEEDED(numbers);
    double worst = 0;
    for (std::int64_t i = 0; i < test::cases(300); ++i) {
        const rw::Geometry g{.head_dim = 2 * numbers.integer(1, 256), .base = test::random_base(numbers)};
        const auto plain = oracle::plain(g.base, g.width());
        const double length = numbers.logarithmic(16, 1e7);
        worst = std::max(
            worst, test::worst_frequency_error(rw::Truncated{.length = length}, g, oracle::truncated(plain, length)));
        const double b = numbers.logarithmic(1e-7, 1), a = b * numbers.uniform(0, 1),
                     rho = numbers.logarithmic(1e-8, 1);
        worst = std::max(worst, test::worst_frequency_error(rw::Truncated{.length = {}, .a = a, .b = b, .rho = rho}, g,
                                                            oracle::truncated(plain, {a}, {b}, {rho})));
    }
    CHECK(worst <= 0x1p-58);
}

TEST_CASE("a frequency on an edge belongs to what lies above it", "[truncated]") {
    const rw::Truncated policy{.length = {}, .a = 0.25, .b = 0.5, .rho = 0.125};
    CHECK(policy(rw::real(0.5), 0, {}) == rw::real(0.5));
    CHECK(policy(rw::real(0.25), 0, {}) == rw::real(0.125));
    CHECK(policy(rw::real(0.25) - rw::real(0x1p-60), 0, {}).is_zero());
}

TEST_CASE("truncated refuses parameters that contradict each other", "[truncated]") {
    const auto validate = [](const rw::Truncated& policy) { policy.validate({}); };
    constexpr double nan = std::numeric_limits<double>::quiet_NaN();
    CHECK_REFUSED(validate({}), "truncated", "no length", "0 of the three");
    CHECK_REFUSED(validate({.length = 4096.0, .a = 0.1}), "truncated", "length", "1 of the three");
    CHECK_REFUSED(validate({.length = {}, .a = 0.1, .b = 0.2}), "truncated", "no length", "2 of the three");
    CHECK_REFUSED(validate({.length = 0.0}), "truncated", "length", "got 0");
    CHECK_REFUSED(validate({.length = -4096.0}), "truncated", "-4096");
    CHECK_REFUSED(validate({.length = nan}), "truncated", "nan");
    CHECK_REFUSED(validate({.length = {}, .a = 0.5, .b = 0.25, .rho = 0.0}), "truncated", "a = 0.5", "b = 0.25");
    CHECK_REFUSED(validate({.length = {}, .a = -0.5, .b = 0.25, .rho = 0.0}), "truncated", "a = -0.5");
    CHECK_REFUSED(validate({.length = {}, .a = 0.0, .b = nan, .rho = 0.0}), "truncated", "nan");
    CHECK_REFUSED(validate({.length = {}, .a = 0.0, .b = 0.25, .rho = -1.0}), "truncated", "rho", "-1");
    CHECK_REFUSED(validate({.length = {}, .a = 0.0, .b = 0.25, .rho = nan}), "truncated", "rho", "nan");
}
