#include <ropewalk/core/real_math.hpp>

#include <cmath>

#include "support/catch.hpp"
#include "support/effort.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"
#include "support/reals.hpp"

namespace rw = ropewalk;
using rw::real;
using test::to_dd;

namespace {

oracle::dd exact_log2(const real& x) {
    const int exponent = x.exponent() + 63;
    return oracle::dd{static_cast<double>(exponent)} + oracle::log(to_dd(x.scaled(-exponent))) / oracle::ln_2;
}

}  // namespace

TEST_CASE("log2 stays within 2^-62 · max(1, |log2 x|)", "[real_math]") {
    SEEDED(numbers);
    double worst = 0;
    for (std::int64_t i = 0; i < test::cases(10000); ++i) {
        const real near_one = real(1) + test::random_real(numbers, 0).scaled(-static_cast<int>(numbers.integer(1, 60)));
        real x = numbers.coin() ? test::random_real(numbers) : near_one;
        if (x.negative()) x = -x;
        const oracle::dd exact = exact_log2(x);
        const double error = std::fabs(oracle::to_double(to_dd(rw::log2(x)) - exact));
        worst = std::max(worst, error / std::max(1.0, std::fabs(exact.hi)));
    }
    UNSCOPED_INFO("worst error 2^" << std::log2(worst));
    CHECK(worst <= 0x1p-62);
}

TEST_CASE("exp2 stays within a relative 2^-61 · max(1, |x|)", "[real_math]") {
    SEEDED(numbers);
    double worst = 0;
    for (std::int64_t i = 0; i < test::cases(10000); ++i) {
        const real x = real(numbers.uniform(-1, 1)) * real(numbers.logarithmic(1e-6, 900));
        const oracle::dd exact = oracle::exp(to_dd(x) * oracle::ln_2);
        worst = std::max(worst,
                         test::relative_error(rw::exp2(x), exact) / std::max(1.0, std::fabs(static_cast<double>(x))));
    }
    UNSCOPED_INFO("worst error 2^" << std::log2(worst));
    CHECK(worst <= 0x1p-61);
    for (int n = -70; n <= 70; ++n) CHECK(rw::exp2(real(n)) == real(1).scaled(n));
}

TEST_CASE("exp2 of a number out of range is refused above and zero below", "[real_math]") {
    for (const double x : {0x1p29, 0x1p31, 1e300}) {
        CHECK_REFUSED(rw::exp2(real(x)), "exceeds the limit");
        CHECK(rw::exp2(real(-x)).is_zero());
        CHECK(rw::pow(real(0.5), real(x)).is_zero());
    }
    CHECK_REFUSED(rw::exp2(real(1).scaled(100000)), "exceeds the limit");
    CHECK(rw::exp2(real(-1).scaled(100000)).is_zero());
}

TEST_CASE("pow is exact in special cases and accurate in general", "[real_math]") {
    CHECK(rw::pow(real(123.25), real(0)) == real(1));
    CHECK(rw::pow(real(0), real(0.5)).is_zero());
    CHECK(rw::pow(real(0), real(0)) == real(1));
    CHECK(rw::pow(real(1), real(17)) == real(1));
    SEEDED(numbers);
    double worst = 0;
    for (std::int64_t i = 0; i < test::cases(10000); ++i) {
        const double base = numbers.logarithmic(1e-3, 1e7), exponent = numbers.uniform(-1, 1);
        const oracle::dd exact = oracle::pow(oracle::dd{base}, oracle::dd{exponent});
        worst = std::max(worst, test::relative_error(rw::pow(real(base), real(exponent)), exact));
    }
    // |exponent · log2 base| < 23.3
    UNSCOPED_INFO("worst relative error 2^" << std::log2(worst));
    CHECK(worst <= 24 * 0x1p-61);
}

TEST_CASE("log, min, max and clamp", "[real_math]") {
    CHECK(test::relative_error(rw::log(real(10)), oracle::log(oracle::dd{10})) <= 0x1p-60);
    CHECK(rw::min(real(1), real(2)) == real(1));
    CHECK(rw::max(real(1), real(-2)) == real(1));
    CHECK(rw::clamp(real(5), real(0), real(3)) == real(3));
    CHECK(rw::clamp(real(-5), real(0), real(3)) == real(0));
    CHECK(rw::clamp(real(2), real(0), real(3)) == real(2));
}

TEST_CASE("floor is the largest integer not above", "[real_math]") {
    const auto of = [](double x) { return static_cast<double>(rw::floor(real(x))); };
    for (const double x : {0.0, 0.5, 1.0, 1.5, 20.9448, -0.5, -1.0, -1.5, -20.9448, 0x1p52, -0x1p52 - 0.0, 0x1p80,
                           -0x1p80, 0x1p-100, -0x1p-100, 1e300})
        CHECK(of(x) == std::floor(x));
    SEEDED(numbers);
    for (std::int64_t i = 0; i < test::cases(10000); ++i) {
        const double x = numbers.uniform(-1, 1) * numbers.logarithmic(1e-3, 1e18);
        CHECK(of(x) == std::floor(x));
    }
    // Beyond double: 64 bits with a fraction of one half, and of almost one.
    const real large = real(false, 0xFFFFFFFFFFFFFFFFU, -1);
    CHECK(rw::floor(large) == real(std::int64_t{0x7FFFFFFFFFFFFFFF}));
    CHECK(rw::floor(-large) == -real(std::uint64_t{1} << 63));
    const real below_one = real(false, 0xFFFFFFFFFFFFFFFFU, -64);
    CHECK(rw::floor(below_one).is_zero());
    CHECK(rw::floor(-below_one) == real(-1));
}
