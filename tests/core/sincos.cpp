#include <ropewalk/core/sincos.hpp>

#include <algorithm>
#include <bit>
#include <cmath>

#include "support/catch.hpp"
#include "support/effort.hpp"
#include "support/oracle.hpp"
#include "support/random.hpp"

namespace rw = ropewalk;

namespace {

double error_at(std::uint32_t phase) {
    const double angle = static_cast<double>(static_cast<std::int32_t>(phase)) * (oracle::two_pi.hi * 0x1p-32);
    const auto value = rw::cos_sin<float>(phase);
    return std::max(std::fabs(static_cast<double>(value.cos) - std::cos(angle)),
                    std::fabs(static_cast<double>(value.sin) - std::sin(angle)));
}

}  // namespace

TEST_CASE("cos_sin stays within 9.6e-8 over more than four million phases", "[sincos]") {
    SEEDED(numbers);
    double worst = 0;
    const std::int64_t count = test::cases(std::int64_t{1} << 22);
    const auto step = static_cast<std::uint32_t>((std::uint64_t{1} << 32) / static_cast<std::uint64_t>(count));
    const auto start = static_cast<std::uint32_t>(numbers.bits());
    for (std::int64_t i = 0; i < count; ++i) {
        worst = std::max(worst, error_at(start + static_cast<std::uint32_t>(i) * step));
        if (i % 8 == 0) worst = std::max(worst, error_at(static_cast<std::uint32_t>(numbers.bits())));
    }
    UNSCOPED_INFO("worst error " << worst);
    CHECK(worst <= 9.6e-8);
}

TEST_CASE("cos_sin stays within 9.6e-8 around every eighth of a turn", "[sincos]") {
    double worst = 0;
    for (std::uint32_t eighth = 0; eighth < 8; ++eighth) {
        for (std::uint32_t i = 0; i < 2048; ++i) worst = std::max(worst, error_at((eighth << 29) + i - 1024));
    }
    CHECK(worst <= 9.6e-8);
}

TEST_CASE("negation changes the sign of the sine and no other bit", "[sincos]") {
    SEEDED(numbers);
    int wrong = 0;
    for (int i = 0; i < 100000; ++i) {
        const auto phase = static_cast<std::uint32_t>(numbers.bits());
        const auto a = rw::cos_sin<float>(phase), b = rw::cos_sin<float>(phase, 0x80000000U);
        wrong += std::bit_cast<std::uint32_t>(a.cos) != std::bit_cast<std::uint32_t>(b.cos);
        wrong += (std::bit_cast<std::uint32_t>(a.sin) ^ std::bit_cast<std::uint32_t>(b.sin)) != 0x80000000U;
    }
    CHECK(wrong == 0);
}

TEST_CASE("quarter turns are exact and opposite phases are symmetric", "[sincos]") {
    constexpr auto zero = rw::cos_sin<float>(0);
    static_assert(zero.cos == 1.0F && zero.sin == 0.0F);
    CHECK(rw::cos_sin<float>(1U << 30).sin == 1.0F);
    CHECK(rw::cos_sin<float>(1U << 30).cos == 0.0F);
    CHECK(rw::cos_sin<float>(2U << 30).cos == -1.0F);
    CHECK(rw::cos_sin<float>(3U << 30).sin == -1.0F);
    SEEDED(numbers);
    int wrong = 0;
    for (int i = 0; i < 100000; ++i) {
        const auto phase = static_cast<std::uint32_t>(numbers.bits());
        if ((phase + 0x20000000U) << 2 == 0) continue;  // the bounds between two quarters are not symmetric
        const auto a = rw::cos_sin<float>(phase), b = rw::cos_sin<float>(0 - phase);
        wrong += a.cos != b.cos || a.sin != -b.sin;
    }
    CHECK(wrong == 0);
}

TEST_CASE("exp2_fixed stays within 1.3e-7 for exponents between −126 and 126", "[sincos]") {
    SEEDED(numbers);
    double worst = 0;
    for (std::int64_t i = 0; i < test::cases(1000000); ++i) {
        const double x = std::nearbyint(numbers.uniform(-126, 126) * 0x1p24) * 0x1p-24;
        const auto bits = static_cast<std::uint32_t>(static_cast<std::int32_t>(x * 0x1p24));
        const auto got = static_cast<double>(rw::exp2_fixed<float>(bits));
        worst = std::max(worst, std::fabs(got / std::exp2(x) - 1));
    }
    UNSCOPED_INFO("worst relative error " << worst);
    CHECK(worst <= 1.3e-7);
    for (int whole = -125; whole <= 125; ++whole) {
        CHECK(rw::exp2_fixed<float>(static_cast<std::uint32_t>(whole) << 24) == std::ldexp(1.0F, whole));
    }
}
