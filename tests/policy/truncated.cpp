#include <ropewalk/policy/truncated.hpp>

#include <array>
#include <cmath>

#include <ropewalk/encoding.hpp>

#include "frequency_error.hpp"
#include "support/catch.hpp"

namespace rw = ropewalk;

namespace {

/// Counts the pairs that are kept, set to rho and set to zero.
std::array<int, 3> counts(const rw::Encoding& encoding, const rw::Encoding& before, double rho) {
    std::array<int, 3> result{};
    for (std::size_t j = 0; j < encoding.steps.size(); ++j) {
        if (encoding.steps[j] == 0) {
            ++result[2];
        } else if (encoding.steps[j] == before.steps[j]) {
            ++result[0];
        } else if (std::fabs(encoding.inv_freq[j] - rho) < 1e-15) {
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
    // After a scale of 4, in the order of Giraffe's code.
    const rw::Linear scale{.factor = 4};
    CHECK(counts(rw::make_encoding(g, scale | cut), rw::make_encoding(g, scale), rho) == std::array{36, 14, 14});
}

TEST_CASE("truncated agrees with the oracle, by length and by edges", "[truncated]") {
    SEEDED(numbers);
    const auto by_length = [&](const rw::Geometry& g) {
        const double length = numbers.logarithmic(16, 1e7);
        return std::pair{rw::Truncated{.length = length}, oracle::truncated(test::plain(g), length)};
    };
    const auto by_edges = [&](const rw::Geometry& g) {
        const double b = numbers.logarithmic(1e-7, 1), a = b * numbers.uniform(0, 1),
                     rho = numbers.logarithmic(1e-8, 1);
        return std::pair{rw::Truncated{.length = {}, .a = a, .b = b, .rho = rho},
                         oracle::truncated(test::plain(g), {a}, {b}, {rho})};
    };
    CHECK(test::worst_random_error(numbers, 300, by_length) <= 0x1p-58);
    CHECK(test::worst_random_error(numbers, 300, by_edges) <= 0x1p-58);
}

TEST_CASE("a frequency on an edge belongs to the range above it", "[truncated]") {
    const rw::Truncated policy{.length = {}, .a = 0.25, .b = 0.5, .rho = 0.125};
    CHECK(policy(rw::real(0.5), 0, {}) == rw::real(0.5));
    CHECK(policy(rw::real(0.25), 0, {}) == rw::real(0.125));
    CHECK(policy(rw::real(0.25) - rw::real(0x1p-60), 0, {}).is_zero());
}
