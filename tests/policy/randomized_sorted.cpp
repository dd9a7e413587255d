#include <ropewalk/policy/randomized_sorted.hpp>

#include <cmath>
#include <vector>

#include "support/catch.hpp"

namespace rw = ropewalk;

namespace {

std::vector<std::int64_t> drawn(const rw::RandomizedSorted& policy, std::size_t n, std::uint64_t row = 0) {
    std::vector<rw::fixed_position> numbers(n, {-1});
    policy.draw_positions(row, numbers);
    std::vector<std::int64_t> result;
    for (const auto& number : numbers) {
        REQUIRE((number.value & 0xffffffff) == 0);
        result.push_back(number.value >> 32);
    }
    return result;
}

bool strictly_ascending(const std::vector<std::int64_t>& values) {
    for (std::size_t i = 1; i < values.size(); ++i) {
        if (values[i] <= values[i - 1]) return false;
    }
    return true;
}

}  // namespace

TEST_CASE("sorted random positions are distinct, ascending and in range", "[randomized_sorted]") {
    for (std::int64_t draw = 0; draw < 200; ++draw) {
        const std::int64_t range = 1 + 37 * draw, n = 1 + (draw * 7919) % range;
        const auto positions = drawn({.range = range, .draw = draw}, static_cast<std::size_t>(n));
        CHECK(strictly_ascending(positions));
        CHECK(positions.front() >= 0);
        CHECK(positions.back() < range);
    }
}

TEST_CASE("drawing the whole range gives every position", "[randomized_sorted]") {
    const auto all = drawn({.range = 130}, 130);
    for (std::size_t i = 0; i < all.size(); ++i) CHECK(all[i] == static_cast<std::int64_t>(i));
    CHECK(drawn({.range = 7}, 0).empty());
}

TEST_CASE("every position and every pair of positions is equally likely", "[randomized_sorted]") {
    constexpr std::int64_t range = 20, n = 5, draws = 8000;
    double single[range]{}, both[range][range]{};
    for (std::int64_t draw = 0; draw < draws; ++draw) {
        const auto positions = drawn({.range = range, .draw = draw}, n);
        for (const auto a : positions) {
            ++single[a];
            for (const auto b : positions) ++both[a][b];
        }
    }
    const double p = static_cast<double>(n) / range, q = p * (n - 1) / (range - 1);
    for (std::int64_t a = 0; a < range; ++a) {
        CHECK(std::fabs(single[a] - draws * p) < 5 * std::sqrt(draws * p * (1 - p)));
        for (std::int64_t b = 0; b < a; ++b)
            CHECK(std::fabs(both[a][b] - draws * q) < 5 * std::sqrt(draws * q * (1 - q)));
    }
}

TEST_CASE("randomized_sorted depends on seed, draw and row only", "[randomized_sorted]") {
    const auto first = drawn({.range = 10000, .seed = 1}, 100);
    CHECK(first == drawn({.range = 10000, .seed = 1}, 100));
    CHECK(first != drawn({.range = 10000, .seed = 2}, 100));
    CHECK(first != drawn({.range = 10000, .seed = 1, .draw = 1}, 100));
    CHECK(first != drawn({.range = 10000, .seed = 1}, 100, 1));
}
