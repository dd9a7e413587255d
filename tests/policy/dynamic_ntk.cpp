#include <ropewalk/policy/dynamic_ntk.hpp>

#include <ropewalk/encoding.hpp>

#include <cmath>

#include "frequency_error.hpp"
#include "support/catch.hpp"

namespace rw = ropewalk;

TEST_CASE("dynamic is plain RoPE with the base b·(s·n/L − (s − 1))^(d/(d−2))", "[dynamic_ntk]") {
    SEEDED(numbers);
    const auto draw = [&](rw::Geometry& g) {
        const rw::DynamicNtk policy{.factor = numbers.logarithmic(0.5, 32),
                                    .original_length = numbers.integer(1, 8192)};
        g.sequence_length = numbers.integer(0, 1 << 20);
        const auto alpha = oracle::dynamic_alpha(policy.factor, policy.original_length, g.sequence_length);
        return std::pair{policy, oracle::ntk(g.base, g.width(), alpha)};
    };
    CHECK(test::worst_random_error(numbers, 200, draw) <= 0x1p-55);
}

TEST_CASE("dynamic is plain up to the original length, and different at every length beyond", "[dynamic_ntk]") {
    const rw::DynamicNtk policy{.factor = 4, .original_length = 4096};
    const auto at_length = [&](std::int64_t length) {
        return rw::make_encoding({.head_dim = 128, .sequence_length = length}, policy);
    };
    const rw::Encoding plain = rw::make_encoding({.head_dim = 128}, rw::Default{});
    for (const std::int64_t length : {0, 1, 4095, 4096}) {
        CHECK(at_length(length).steps == plain.steps);
        CHECK(at_length(length).stage == 0);
    }
    CHECK(at_length(4097).steps != plain.steps);
    CHECK(at_length(4097).stage != 0);
    CHECK(at_length(4098).stage != at_length(4097).stage);
    CHECK(at_length(4098).steps != at_length(4097).steps);
    // α = 4·2 − 3 at twice the length.
    CHECK(at_length(8192).inv_freq.back() == Approx(plain.inv_freq.back() / 5).epsilon(1e-15));
    CHECK(at_length(8192).inv_freq.front() == 1);
    // A factor whose difference would cancel.
    const rw::DynamicNtk steep{.factor = 1e300, .original_length = std::int64_t{1} << 62};
    const rw::Geometry next{.head_dim = 128, .sequence_length = (std::int64_t{1} << 62) + 1};
    CHECK(static_cast<double>(steep.alpha(next)) == Approx(std::ldexp(1e300, -62)).epsilon(1e-15));
}
