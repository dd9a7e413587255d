#include <ropewalk/core/wide.hpp>

#include <algorithm>

#include "support/catch.hpp"
#include "support/effort.hpp"
#include "support/random.hpp"

namespace detail = ropewalk::detail;

__extension__ using u128 = unsigned __int128;

TEST_CASE("64 × 64 → 128 bit products agree with the compiler's", "[wide]") {
    SEEDED(numbers);
    std::int64_t wrong = 0;
    for (std::int64_t i = 0; i < test::cases(1000000); ++i) {
        const std::uint64_t a = numbers.bits() >> numbers.integer(0, 63), b = numbers.bits() >> numbers.integer(0, 63);
        const u128 exact = static_cast<u128>(a) * b;
        const detail::wide got = detail::multiply(a, b);
        wrong += got.high != static_cast<std::uint64_t>(exact >> 64) || got.low != static_cast<std::uint64_t>(exact);
    }
    CHECK(wrong == 0);
    const detail::wide largest = detail::multiply(~std::uint64_t{0}, ~std::uint64_t{0});
    CHECK(largest.high == ~std::uint64_t{1});
    CHECK(largest.low == 1);
}

TEST_CASE("128 / 64 bit division gives quotient and remainder", "[wide]") {
    SEEDED(numbers);
    std::int64_t wrong = 0;
    // The estimate of a digit uses the upper half of d: halves of zeros and of ones give the worst estimates.
    const auto draw = [&numbers] {
        const std::uint64_t any = numbers.bits() >> numbers.integer(0, 63), ones = 0xffffffffU;
        return numbers.one_of(
            {any, any | ones, any & ~ones, any | (ones << 32), std::uint64_t{1} << 63, ~std::uint64_t{0}});
    };
    for (std::int64_t i = 0; i < test::cases(200000); ++i) {
        const std::uint64_t d = std::max(draw(), std::uint64_t{1});
        const detail::wide n{numbers.coin() ? draw() % d : d - 1, draw()};
        const u128 whole = (static_cast<u128>(n.high) << 64) | n.low;
        std::uint64_t remainder = 0;
        wrong += detail::divide(n, d, &remainder) != static_cast<std::uint64_t>(whole / d);
        wrong += remainder != static_cast<std::uint64_t>(whole % d);
    }
    CHECK(wrong == 0);
}
