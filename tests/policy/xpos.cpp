#include <ropewalk/policy/xpos.hpp>

#include <limits>

#include <ropewalk/encoding.hpp>

#include "support/catch.hpp"
#include "support/effort.hpp"
#include "support/encodings.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;

TEST_CASE("xpos decays by −log2(ζ_j)/scale_base a token", "[xpos]") {
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
    CHECK(worst <= 1e-12);  // near ζ = 1 the oracle's own logarithm cancels
}

TEST_CASE("xpos refuses parameters that make no sense", "[xpos]") {
    const auto validate = [](const rw::XPos& policy) { policy.validate({.head_dim = 128}); };
    constexpr double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
    CHECK_NOTHROW(validate({}));
    CHECK_REFUSED(validate({.scale_base = 0}), "xpos", "scale_base", "got 0");
    CHECK_REFUSED(validate({.scale_base = -512}), "xpos", "scale_base", "-512");
    CHECK_REFUSED(validate({.scale_base = nan}), "xpos", "scale_base", "nan");
    CHECK_REFUSED(validate({.gamma = 0}), "xpos", "gamma", "got 0");
    CHECK_REFUSED(validate({.gamma = -0.4}), "xpos", "gamma", "-0.4");
    CHECK_REFUSED(validate({.gamma = nan}), "xpos", "gamma", "nan");
    CHECK_REFUSED(validate({.gamma = infinity}), "xpos", "gamma", "inf");
    CHECK_REFUSED(validate({.length = -1}), "xpos", "length", "-1");
    CHECK_REFUSED(validate({.scale_base = 3}), "xpos", "scale_base 3", "gamma");
}

TEST_CASE("xpos refuses a stated length that f32 cannot hold, with the numbers", "[xpos]") {
    const rw::Geometry g{.head_dim = 128};
    const std::int64_t longest = 2 * static_cast<std::int64_t>(126 * 512 / std::log2(3.5));
    CHECK_NOTHROW(rw::make_encoding(g, rw::XPos{.length = longest}));
    CHECK_NOTHROW(rw::make_encoding(g, rw::XPos{.scale_base = 1024, .length = 2 * longest}));
    const auto message = test::message_of([&] { rw::make_encoding(g, rw::XPos{.length = 131072}); });
    INFO(message);
    CHECK(test::holds(message, {"xpos", "131072", std::to_string(longest).c_str()}));
}

TEST_CASE("the reach of xpos is what its documentation promises", "[xpos]") {
    const rw::Encoding e = rw::make_encoding({.head_dim = 128}, rw::XPos{});
    CHECK(e.reach(rw::element_type::f32) == 35694);
    CHECK(e.reach(rw::element_type::f16) == 4532);
    CHECK(rw::make_encoding({.head_dim = 128}, rw::XPos{.length = 4097}).centre == 2048);
}
