#include <ropewalk/core/real.hpp>

#include <cmath>
#include <limits>

#include "support/catch.hpp"
#include "support/effort.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"
#include "support/reals.hpp"

namespace rw = ropewalk;
using rw::real;
using test::relative_error;
using test::to_dd;

TEST_CASE("sums, products and quotients are within 2^-63 of exact", "[real]") {
    SEEDED(numbers);
    double worst = 0;
    for (std::int64_t i = 0; i < test::cases(300000); ++i) {
        const real a = test::random_real(numbers), b = test::random_real(numbers);
        worst = std::max(worst, relative_error(a + b, to_dd(a) + to_dd(b)));
        worst = std::max(worst, relative_error(a - b, to_dd(a) - to_dd(b)));
        worst = std::max(worst, relative_error(a * b, to_dd(a) * to_dd(b)));
        worst = std::max(worst, relative_error(a / b, to_dd(a) / to_dd(b)));
    }
    UNSCOPED_INFO("worst relative error 2^" << std::log2(worst));
    CHECK(worst <= 0x1p-63);
}

TEST_CASE("differences of neighbours are exact", "[real]") {
    SEEDED(numbers);
    int wrong = 0;
    for (int i = 0; i < 100000; ++i) {
        const real a = test::random_real(numbers);
        const real b(a.negative(), a.mantissa() ^ (numbers.bits() >> numbers.integer(1, 63)), a.exponent());
        const oracle::dd exact = to_dd(a) - to_dd(b), got = to_dd(a - b);
        wrong += (got - exact).hi != 0;
        wrong += !(a - a).is_zero() || (a - a).negative();
    }
    CHECK(wrong == 0);
}

TEST_CASE("doubles and integers convert exactly, and back", "[real]") {
    SEEDED(numbers);
    int wrong = 0;
    for (int i = 0; i < 200000; ++i) {
        const auto value = std::bit_cast<double>(numbers.bits());
        if (!std::isfinite(value)) continue;
        const bool normal = std::fabs(value) >= std::numeric_limits<double>::min();
        wrong += static_cast<double>(real(value)) != (normal ? value : 0.0);
        wrong += oracle::to_double(to_dd(real(value)) - oracle::dd{value}) != 0;
        const auto whole = static_cast<std::int64_t>(numbers.bits());
        wrong += oracle::to_double(to_dd(real(whole)) - oracle::from_integer(whole)) != 0;
    }
    CHECK(wrong == 0);
    CHECK(real(std::numeric_limits<std::int64_t>::min()) == real(-0x1p63));
    CHECK(real(std::numeric_limits<std::uint64_t>::max()) == real(0x1p64) - real(1));
    CHECK(real(5e-324) == real(1).scaled(-1074));
    CHECK(real(-0.0) == real(0));
    CHECK(static_cast<double>(real(1).scaled(2000)) == std::numeric_limits<double>::max());
    CHECK(static_cast<double>(real(-1).scaled(2000)) == -std::numeric_limits<double>::max());
}

TEST_CASE("conversion to double rounds to the nearest", "[real]") {
    SEEDED(numbers);
    int wrong = 0;
    for (int i = 0; i < 200000; ++i) {
        const real a = test::random_real(numbers);
        const auto nearest = static_cast<double>(a);
        // |a − nearest| must not exceed half a unit in the last place.
        const double off = std::fabs(oracle::to_double(to_dd(a) - oracle::dd{nearest}));
        const double unit = std::nextafter(std::fabs(nearest), HUGE_VAL) - std::fabs(nearest);
        wrong += off > unit / 2;
    }
    CHECK(wrong == 0);
    CHECK(static_cast<double>(real(false, ~std::uint64_t{0}, 0)) == 0x1p64);
}

TEST_CASE("comparisons agree with the oracle", "[real]") {
    SEEDED(numbers);
    int wrong = 0;
    for (int i = 0; i < 200000; ++i) {
        const real a = test::random_real(numbers);
        const real b =
            numbers.coin() ? test::random_real(numbers) : a + a.scaled(-static_cast<int>(numbers.integer(50, 70)));
        const double difference = oracle::to_double(to_dd(a) - to_dd(b));
        wrong += (a < b) != (difference < 0) || (a > b) != (difference > 0) || (a == b) != (difference == 0);
    }
    CHECK(wrong == 0);
    CHECK(real(0) == -real(0));
    CHECK(real(-1) < real(0));
    CHECK(real(0) < real(5e-324));
}

TEST_CASE("rounding modulo 2^64 is to the nearest integer, two's complement", "[real]") {
    CHECK(real(0.5).rounded_modulo_2_64() == 1);
    CHECK(real(0.49).rounded_modulo_2_64() == 0);
    CHECK(real(-0.5).rounded_modulo_2_64() == ~std::uint64_t{0});
    CHECK(real(-3).rounded_modulo_2_64() == 0U - std::uint64_t{3});
    CHECK(real(0x1p64).rounded_modulo_2_64() == 0);
    CHECK((real(0x1p64) + real(4096)).rounded_modulo_2_64() == 4096);
    CHECK(real(0x1.8p64).rounded_modulo_2_64() == std::uint64_t{1} << 63);
    CHECK(real(0x1p200).rounded_modulo_2_64() == 0);
    CHECK(real(0x1p-200).rounded_modulo_2_64() == 0);
    CHECK((real(0x1p64) - real(0.25)).rounded_modulo_2_64() == 0);
    SEEDED(numbers);
    int wrong = 0;
    for (int i = 0; i < 100000; ++i) {
        const auto whole = numbers.bits();
        const int down = static_cast<int>(numbers.integer(1, 30));
        const std::uint64_t exact = (whole >> down) + ((whole >> (down - 1)) & 1U);
        wrong += real(whole).scaled(-down).rounded_modulo_2_64() != exact;
        wrong += (-real(whole).scaled(-down)).rounded_modulo_2_64() != 0 - exact;
    }
    CHECK(wrong == 0);
}

TEST_CASE("an exponent out of range is refused above and zero below", "[real]") {
    constexpr int limit = real::largest_exponent;
    const real large = real(1).scaled(limit), small = real(1).scaled(-limit + 63);
    CHECK(large / large == real(1));
    CHECK(static_cast<double>(large) == std::numeric_limits<double>::max());
    CHECK_REFUSED(large * large, "2^268435456");
    CHECK_REFUSED(large / small, "exceeds the limit");
    CHECK_REFUSED(large.scaled(std::numeric_limits<int>::max()), "exceeds the limit");
    CHECK_REFUSED(-large.scaled(63) - large.scaled(63), "exceeds the limit");
    CHECK((small * small).is_zero());
    CHECK((small / large).is_zero());
    CHECK(small.scaled(std::numeric_limits<int>::min()).is_zero());
    CHECK((large + small) == large);
    CHECK(real(false, 1, std::numeric_limits<std::int64_t>::min() + 64).is_zero());
    // Without a limit the exponent wraps after 22 squares of 2^1023.
    real square(0x1p1023);
    CHECK_REFUSED(
        [&] {
            for (int i = 0; i < 40; ++i) square = square * square;
        }(),
        "exceeds the limit");
}

TEST_CASE("the constants are correctly rounded", "[real]") {
    CHECK(relative_error(rw::two_pi, oracle::two_pi) <= 0x1p-64);
    CHECK(relative_error(rw::ln_2, oracle::ln_2) <= 0x1p-64);
}
