#include <ropewalk/policy/llama3.hpp>

#include "frequency_error.hpp"
#include "support/catch.hpp"

namespace rw = ropewalk;

TEST_CASE("llama3 agrees with the oracle over geometries and parameters", "[llama3]") {
    SEEDED(numbers);
    const auto draw = [&](const rw::Geometry& g) {
        oracle::bands b{.factor = numbers.logarithmic(0.5, 64), .original = numbers.integer(64, 1 << 17)};
        if (numbers.coin()) {
            b.low = numbers.logarithmic(0.1, 10);
            b.high = b.low * numbers.logarithmic(1.1, 20);
        }
        return std::pair{rw::Llama3{.factor = b.factor,
                                    .low_freq_factor = b.low,
                                    .high_freq_factor = b.high,
                                    .original_length = b.original},
                         oracle::llama3(test::plain(g), b)};
    };
    const double worst = test::worst_random_error(numbers, 300, draw);
    CHECK(worst <= 0x1p-53);
    CHECK(worst > 0);
}

TEST_CASE("llama3 keeps high frequencies and divides low ones", "[llama3]") {
    const rw::Geometry g{.head_dim = 128, .base = 500000};
    const rw::Llama3 policy{};  // Llama 3.1
    int kept = 0, divided = 0;
    for (std::int64_t j = 0; j < 64; ++j) {
        const rw::real theta = g.theta(j), scaled = policy(theta, j, g);
        const double wave = oracle::two_pi.hi / static_cast<double>(theta);
        INFO("pair " << j << ", wavelength " << wave);
        CHECK((scaled == theta) == (wave < 2048));
        CHECK((scaled == theta.scaled(-3)) == (wave > 8192));
        kept += wave < 2048 ? 1 : 0;
        divided += wave > 8192 ? 1 : 0;
    }
    CHECK(kept == 29);
    CHECK(divided == 29);
}

TEST_CASE("llama3 is continuous at its bounds", "[llama3]") {
    const rw::Geometry g{.head_dim = 128};
    const rw::Llama3 policy{.factor = 8, .low_freq_factor = 1, .high_freq_factor = 4, .original_length = 8192};
    const double fast = oracle::two_pi.hi / 2048, slow = oracle::two_pi.hi / 8192;
    const auto relative = [&](double theta) {
        return static_cast<double>(policy(rw::real(theta), 0, g) / rw::real(theta));
    };
    for (const double nearby : {1 - 1e-12, 1.0, 1 + 1e-12}) {
        CHECK(relative(fast * nearby) == Approx(1).epsilon(1e-11));
        CHECK(relative(slow * nearby) == Approx(0.125).epsilon(1e-11));
    }
    // Halfway between one rotation and four: t = 1/2.
    CHECK(relative(slow * 2.5) == Approx(0.5 / 8 + 0.5).epsilon(1e-14));
}
