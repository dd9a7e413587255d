#include <ropewalk/policy/randomized.hpp>

#include <algorithm>
#include <cmath>
#include <vector>

#include "support/catch.hpp"
#include "support/random.hpp"

namespace rw = ropewalk;

namespace {

std::vector<double> drawn(const rw::Randomized& policy, std::size_t n, std::uint64_t row = 0) {
    std::vector<rw::fixed_position> numbers(n);
    policy.draw_positions(row, numbers);
    std::vector<double> result;
    for (const auto& number : numbers) result.push_back(static_cast<double>(number.value) * 0x1p-32);
    return result;
}

/// The definition in Giraffe's code: cumulative sums of U(epsilon, 2), times n / max(last, n).
std::vector<double> defined(const rw::Randomized& policy, std::size_t n, std::uint32_t row) {
    std::vector<double> t;
    double sum = 0;
    for (std::size_t i = 0; i < n; ++i) {
        const auto bits =
            rw::random_bits(static_cast<std::uint64_t>(policy.seed), static_cast<std::uint32_t>(policy.draw), row, i);
        sum += policy.epsilon + (2 - policy.epsilon) * static_cast<double>(bits) * 0x1p-64;
        t.push_back(sum);
    }
    const double scale = static_cast<double>(n) / std::max(sum, static_cast<double>(n));
    for (double& position : t) position *= scale;
    return t;
}

}  // namespace

TEST_CASE("randomized positions follow Giraffe's definition", "[randomized]") {
    SEEDED(numbers);
    double worst = 0;
    for (int i = 0; i < 100; ++i) {
        const rw::Randomized policy{.epsilon = numbers.one_of({0.0, 0.25, 1.5, 2.0}),
                                    .seed = numbers.integer(-100, 100),
                                    .draw = numbers.integer(0, 10)};
        const auto n = static_cast<std::size_t>(numbers.integer(1, 3000));
        const auto row = static_cast<std::uint32_t>(numbers.integer(0, 5));
        const auto got = drawn(policy, n, row), exact = defined(policy, n, row);
        for (std::size_t k = 0; k < n; ++k) worst = std::max(worst, std::fabs(got[k] - exact[k]));
    }
    CHECK(worst <= 3000 * 0x1p-31);
}

TEST_CASE("randomized positions ascend, start above zero and never exceed n", "[randomized]") {
    for (std::int64_t draw = 0; draw < 50; ++draw) {
        for (const double epsilon : {0.0, 1.0, 2.0}) {
            const auto t = drawn({.epsilon = epsilon, .draw = draw}, 1000);
            CHECK(std::is_sorted(t.begin(), t.end()));
            CHECK(t.front() > 0);
            CHECK(t.back() <= 1000.0);
        }
    }
}

TEST_CASE("the mean step is about one, and every step lies within the scaled bounds", "[randomized]") {
    const auto plain = drawn({}, 65536);
    CHECK(plain.back() > 0.98 * 65536);
    double shortest = 2, longest = 0;
    const auto bounded = drawn({.epsilon = 0.5}, 65536);
    for (std::size_t i = 1; i < bounded.size(); ++i) {
        shortest = std::min(shortest, bounded[i] - bounded[i - 1]);
        longest = std::max(longest, bounded[i] - bounded[i - 1]);
    }
    // Steps of U(0.5, 2) have a mean of 1.25, so positions are divided by about that.
    CHECK(bounded.back() == Approx(65536).epsilon(1e-8));
    CHECK(shortest == Approx(0.4).epsilon(0.02));
    CHECK(longest == Approx(1.6).epsilon(0.02));
}

TEST_CASE("randomized depends on seed, draw and row only", "[randomized]") {
    const auto first = drawn({.seed = 1}, 100);
    CHECK(first == drawn({.seed = 1}, 100));
    CHECK(first != drawn({.seed = 2}, 100));
    CHECK(first != drawn({.seed = 1, .draw = 1}, 100));
    CHECK(first != drawn({.seed = 1}, 100, 1));
}
