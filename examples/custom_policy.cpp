// Custom frequency policy: an aggregate with a name, its parameters and the formula θ'_j = f(θ_j, j, geometry).
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <vector>

#include <ropewalk/ropewalk.hpp>
namespace rw = ropewalk;

/// Divides the frequencies of the pairs from `first` on, and keeps the higher ones.
struct SlowTail {
    double factor = 1;
    std::int64_t first = 0;

    static constexpr std::string_view name = "slow_tail";
    static constexpr std::string_view about = "Divides the low frequencies by factor and keeps the high ones.";
    static constexpr auto parameters = std::tuple{rw::parameter<SlowTail, double>{"factor", &SlowTail::factor},
                                                  rw::parameter<SlowTail, std::int64_t>{"first", &SlowTail::first}};

    void validate(const rw::Geometry& geometry) const {
        RW_EXPECTS(factor >= 1 && factor <= 1e6, "slow_tail: factor must lie in [1, 1e6], got {}", factor);
        RW_EXPECTS(first >= 0 && first < geometry.pairs(), "slow_tail: first must lie in [0, {}), got {}",
                   geometry.pairs(), first);
    }
    rw::real operator()(const rw::real& theta, std::int64_t pair, const rw::Geometry&) const {
        return pair < first ? theta : theta / rw::real(factor);
    }
    /// Required only for policies in the registry, for their tests.
    static SlowTail neutral() { return {.factor = 1}; }
    static SlowTail example() { return {.factor = 4, .first = 1}; }
};
static_assert(rw::FrequencyPolicy<SlowTail>);

int main() {
    const rw::Geometry geometry{.head_dim = 64};
    // It composes with the built-in policies: slow_tail is applied first, then Giraffe's truncation.
    auto encoding = rw::make_encoding(geometry, SlowTail{.factor = 4, .first = 8} | rw::Truncated{.length = 4096});
    std::cout << encoding.expression << "\n";

    std::vector<float> heads(2 * 64, 0.5F);
    rw::cpu::rotate<rw::interleaved>(rw::thd(heads.data(), 1, 2, 64), encoding, rw::offset{1000});

    // Pair 8 is (16, 17) and rotates by θ_8 / 4 per token.
    const double angle = 1000 * std::pow(10000.0, -2.0 * 8 / 64) / 4;
    const bool neutral = rw::make_encoding(geometry, SlowTail::neutral()).steps == rw::make_encoding(geometry).steps;
    const bool correct = neutral && std::abs(heads[16] - 0.5 * (std::cos(angle) - std::sin(angle))) < 1e-6 &&
                         encoding.expression == "slow_tail:4,first=8|truncated:4096";

    // Invalid parameters are reported with their values.
    try {
        rw::make_encoding(geometry, SlowTail{.factor = 0.5});
        return EXIT_FAILURE;
    } catch (const rw::error& error) {
        std::cout << error.what() << "\n";
    }
    return correct ? EXIT_SUCCESS : EXIT_FAILURE;
}
