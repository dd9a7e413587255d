#include <ropewalk/core/phase.hpp>

#include <limits>

#include "support/catch.hpp"
#include "support/effort.hpp"
#include "support/random.hpp"

namespace rw = ropewalk;

TEST_CASE("phase(m) − phase(n) == phase(m − n) bit for bit, for all m and n", "[phase]") {
    SEEDED(numbers);
    std::int64_t wrong = 0;
    for (std::int64_t i = 0; i < test::cases(1000000); ++i) {
        const auto step = numbers.bits();
        const auto m = static_cast<std::int64_t>(numbers.bits()), n = static_cast<std::int64_t>(numbers.bits());
        const auto distance = static_cast<std::int64_t>(static_cast<std::uint64_t>(m) - static_cast<std::uint64_t>(n));
        wrong += rw::phase(m, step) - rw::phase(n, step) != rw::phase(distance, step);
    }
    CHECK(wrong == 0);
}

TEST_CASE("the phase at the smallest and largest position is exact", "[phase]") {
    constexpr auto lowest = std::numeric_limits<std::int64_t>::min(),
                   highest = std::numeric_limits<std::int64_t>::max();
    constexpr std::uint64_t step = 0x28be60db9391054bU;
    static_assert(rw::phase(0, step) == 0 && rw::phase(1, step) == step && rw::phase(-1, step) == 0 - step);
    CHECK(rw::phase(lowest, step) == (step & 1U) << 63);
    CHECK(rw::phase(highest, step) + step == rw::phase(lowest, step));
    CHECK(rw::phase(highest, step) - rw::phase(lowest, step) == rw::phase(-1, step));
}

TEST_CASE("upper_phase is the upper half of a phase", "[phase]") {
    SEEDED(numbers);
    for (int i = 0; i < 1000; ++i) {
        const std::uint64_t step = numbers.bits(), position = numbers.bits() >> numbers.integer(0, 63);
        const std::uint64_t whole = rw::phase(static_cast<std::int64_t>(position), step);
        CHECK(rw::upper_phase(position, step) == whole >> 32);
    }
}

TEST_CASE("an integer fixed_position has the phase of the integer", "[phase]") {
    SEEDED(numbers);
    std::int64_t wrong = 0;
    for (std::int64_t i = 0; i < test::cases(200000); ++i) {
        const auto step = numbers.bits();
        const std::int64_t whole = numbers.integer(-(std::int64_t{1} << 31), (std::int64_t{1} << 31) - 1);
        const rw::fixed_position p{static_cast<std::int64_t>(static_cast<std::uint64_t>(whole) << 32)};
        wrong += rw::phase(p, step) != rw::phase(whole, step);
        wrong += rw::make_fixed_position(rw::real(whole)) != p;
    }
    CHECK(wrong == 0);
}

TEST_CASE("the phase of a fractional position is the exact product rounded down", "[phase]") {
    SEEDED(numbers);
    std::int64_t wrong = 0;
    for (std::int64_t i = 0; i < test::cases(500000); ++i) {
        const auto step = numbers.bits();
        const auto value = static_cast<std::int64_t>(numbers.bits());
        // value · step / 2^32 modulo 2^64 in 128-bit arithmetic; value is split to avoid an overflow.
        __extension__ using u128 = unsigned __int128;
        const auto low = static_cast<u128>(static_cast<std::uint64_t>(value) & 0xffffffffU) * step >> 32;
        const std::uint64_t exact = static_cast<std::uint64_t>(value >> 32) * step + static_cast<std::uint64_t>(low);
        wrong += rw::phase(rw::fixed_position{value}, step) != exact;
    }
    CHECK(wrong == 0);
}

TEST_CASE("make_fixed_position rounds to the nearest 2^-32", "[phase]") {
    CHECK(rw::make_fixed_position(rw::real(1.5)).value == std::int64_t{3} << 31);
    CHECK(rw::make_fixed_position(rw::real(-1.5)).value == -(std::int64_t{3} << 31));
    CHECK(rw::make_fixed_position(rw::real(0x1p-32)).value == 1);
    CHECK(rw::make_fixed_position(rw::real(0x1.1p-33)).value == 1);
    CHECK(rw::make_fixed_position(rw::real(0x1.fp-34)).value == 0);
    CHECK(rw::make_fixed_position(rw::real(-2147483648.0)).value == std::numeric_limits<std::int64_t>::min());
}

TEST_CASE("a step is the fraction of a turn times 2^64, wrapped", "[phase]") {
    CHECK(rw::make_step(rw::two_pi) == 0);
    CHECK(rw::make_step(rw::two_pi.scaled(-1)) == std::uint64_t{1} << 63);
    CHECK(rw::make_step(rw::two_pi.scaled(-64)) == 1);
    CHECK(rw::make_step(rw::two_pi * rw::real(1.25)) == std::uint64_t{1} << 62);
    CHECK(rw::make_step(rw::real(0)) == 0);
    // 2^64 / 2π = 2935890503282001226.4…
    CHECK(rw::make_step(rw::real(1)) - 2935890503282001224U <= 4);
}
