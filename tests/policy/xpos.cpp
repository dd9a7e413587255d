#include <ropewalk/policy/xpos.hpp>

#include <cmath>

#include <ropewalk/encoding.hpp>

#include "support/catch.hpp"
#include "support/effort.hpp"
#include "support/encodings.hpp"

namespace rw = ropewalk;

TEST_CASE("the magnitude rate of xpos is −log2(ζ_j)/scale_base per token", "[xpos]") {
    SEEDED(numbers);
    double worst = 0;
    for (std::int64_t i = 0; i < test::cases(300); ++i) {
        const rw::Geometry g{.head_dim = 2 * numbers.integer(1, 256)};
        const rw::XPos policy{.scale_base = numbers.logarithmic(64, 8192), .gamma = numbers.uniform(0.1, 4)};
        const oracle::xpos_magnitude exact{policy.scale_base, policy.gamma, 0};
        for (std::int64_t j = 0; j < g.pairs(); ++j) {
            const long double rate =
                -std::log2(oracle::zeta(exact, j, g.pairs())) / static_cast<long double>(policy.scale_base);
            const long double got = static_cast<double>(policy.magnitude_rate(j, g));
            worst = std::max(worst, static_cast<double>(std::fabs(got / rate - 1)));
        }
    }
    UNSCOPED_INFO("worst relative error " << worst);
    CHECK(worst <= 1e-12);  // the logarithm of the oracle cancels near ζ = 1
}

TEST_CASE("xpos accepts lengths up to the range of f32, and names the limit", "[xpos]") {
    const rw::Geometry g{.head_dim = 128};
    const std::int64_t longest = 2 * static_cast<std::int64_t>(126 * 512 / std::log2(3.5));
    CHECK_NOTHROW(rw::make_encoding(g, rw::XPos{.length = longest}));
    CHECK_NOTHROW(rw::make_encoding(g, rw::XPos{.scale_base = 1024, .length = 2 * longest}));
    CHECK_THROWS_WITH(rw::make_encoding(g, rw::XPos{.length = 131072}),
                      "ropewalk: xpos: length must not exceed " + std::to_string(longest) +
                          " tokens in f32 and bf16 with these parameters, got 131072");
}

TEST_CASE("the reach of xpos is the documented one", "[xpos]") {
    const rw::Encoding e = rw::make_encoding({.head_dim = 128}, rw::XPos{});
    CHECK(e.reach(rw::element_type::f32) == 35694);
    CHECK(e.reach(rw::element_type::f16) == 4532);
    CHECK(rw::make_encoding({.head_dim = 128}, rw::XPos{.length = 4097}).centre == 2048);
    // An attention factor takes bits of the element type.
    const double tokens_per_bit = 512 / std::log2(3.5);
    for (const double factor : {0x1p10, 0x1p-10}) {
        const rw::Encoding scaled =
            rw::make_encoding({.head_dim = 128}, rw::XPos{}, rw::LongRope{.attention_factor_given = factor});
        CHECK(scaled.reach(rw::element_type::f32) == static_cast<std::int64_t>(116 * tokens_per_bit));
        CHECK(scaled.reach(rw::element_type::f16) == static_cast<std::int64_t>(5.9993 * tokens_per_bit));
    }
    const rw::Encoding large =
        rw::make_encoding({.head_dim = 128}, rw::XPos{}, rw::LongRope{.attention_factor_given = 0x1p20});
    CHECK(large.reach(rw::element_type::f16) == 0);
}
