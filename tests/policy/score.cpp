#include <ropewalk/policy/score.hpp>

#include <cmath>
#include <limits>
#include <vector>

#include "support/catch.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"

namespace rw = ropewalk;

TEST_CASE("the query temperature is 1 + scale · ln(1 + ⌊(p + 1)/length⌋)", "[score]") {
    const rw::QueryTemperature llama4{};
    CHECK(llama4(0) == 1);
    CHECK(llama4(8190) == 1);
    CHECK(llama4(8191) == Approx(1 + 0.1 * std::log(2.0)).epsilon(1e-15));
    CHECK(llama4(16382) == llama4(8191));
    CHECK(llama4(16383) == Approx(1 + 0.1 * std::log(3.0)).epsilon(1e-15));
    SEEDED(numbers);
    for (int i = 0; i < 1000; ++i) {
        const rw::QueryTemperature t{.scale = numbers.uniform(0, 2), .length = numbers.integer(1, 100000)};
        const std::int64_t p = numbers.integer(0, std::int64_t{1} << 40);
        const std::int64_t periods = (p + 1 - (p + 1) % t.length) / t.length;
        CHECK(t(p) == Approx(1 + t.scale * std::log1p(static_cast<double>(periods))).epsilon(1e-14));
    }
}

TEST_CASE("the query temperature rejects invalid arguments", "[score]") {
    CHECK_REFUSED(rw::QueryTemperature{.length = 0}(5), "length", "got 0");
    CHECK_REFUSED(rw::QueryTemperature{.length = -8192}(5), "length", "-8192");
    CHECK_REFUSED(rw::QueryTemperature{}(-1), "position", "-1");
    CHECK_REFUSED(rw::QueryTemperature{}(std::numeric_limits<std::int64_t>::max()), "position", "9223372036854775807");
    constexpr std::int64_t last = std::numeric_limits<std::int64_t>::max() - 1;
    CHECK(rw::QueryTemperature{}(last) > 1);
    // constexpr, so that the compiler rejects an overflow.
    constexpr double largest = rw::QueryTemperature{.length = 1}(last);
    CHECK(largest == Approx(1 + 0.1 * 63 * std::log(2.0)).epsilon(1e-14));
}

TEST_CASE("ALiBi's slopes are a geometric series for a power of two", "[score]") {
    CHECK(rw::alibi_slopes(8) == std::vector{0.5, 0.25, 0.125, 0.0625, 0x1p-5, 0x1p-6, 0x1p-7, 0x1p-8});
    CHECK(rw::alibi_slopes(1) == std::vector{0x1p-8});
    for (const std::int64_t heads : {2, 16, 32, 128}) {
        const auto slopes = rw::alibi_slopes(heads);
        REQUIRE(static_cast<std::int64_t>(slopes.size()) == heads);
        for (std::int64_t h = 1; h <= heads; ++h)
            CHECK(slopes[static_cast<std::size_t>(h - 1)] ==
                  Approx(std::exp2(-8.0 * static_cast<double>(h) / static_cast<double>(heads))).epsilon(1e-15));
    }
}

TEST_CASE("ALiBi's slopes for other numbers of heads add every second slope of the next power of two", "[score]") {
    CHECK(rw::alibi_slopes(3) == std::vector{0x1p-4, 0x1p-8, 0x1p-2});
    CHECK(rw::alibi_slopes(6) == std::vector{0x1p-2, 0x1p-4, 0x1p-6, 0x1p-8, 0x1p-1, 0x1p-3});
    const auto twelve = rw::alibi_slopes(12), eight = rw::alibi_slopes(8), sixteen = rw::alibi_slopes(16);
    REQUIRE(twelve.size() == 12);
    for (std::size_t h = 0; h < 8; ++h) CHECK(twelve[h] == eight[h]);
    for (std::size_t h = 0; h < 4; ++h) CHECK(twelve[8 + h] == sixteen[2 * h]);
    CHECK_REFUSED(rw::alibi_slopes(0), "alibi", "heads", "got 0");
    CHECK_REFUSED(rw::alibi_slopes(-4), "alibi", "heads", "got -4");
}
