#include <ropewalk/policy/dynamic_ntk.hpp>

#include <limits>

#include <ropewalk/encoding.hpp>

#include "support/catch.hpp"
#include "support/effort.hpp"
#include "support/encodings.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;

TEST_CASE("dynamic is plain RoPE with the base b·(s·n/L − (s − 1))^(d/(d−2))", "[dynamic_ntk]") {
    SEEDED(numbers);
    double worst = 0;
    for (std::int64_t i = 0; i < test::cases(200); ++i) {
        const rw::DynamicNtk policy{.factor = numbers.logarithmic(0.5, 32),
                                    .original_length = numbers.integer(1, 8192)};
        const rw::Geometry g{.head_dim = 2 * numbers.integer(1, 256),
                             .base = test::random_base(numbers),
                             .sequence_length = numbers.integer(0, 1 << 20)};
        const auto alpha = oracle::dynamic_alpha(policy.factor, policy.original_length, g.sequence_length);
        worst = std::max(worst, test::worst_frequency_error(policy, g, oracle::ntk(g.base, g.width(), alpha)));
    }
    UNSCOPED_INFO("worst relative error " << worst);
    CHECK(worst <= 0x1p-55);
}

TEST_CASE("dynamic changes nothing up to the original length, and something at every length beyond", "[dynamic_ntk]") {
    const rw::DynamicNtk policy{.factor = 4, .original_length = 4096};
    const auto at = [&](std::int64_t length) {
        return rw::make_encoding({.head_dim = 128, .sequence_length = length}, policy);
    };
    const rw::Encoding plain = rw::make_encoding({.head_dim = 128}, rw::Default{});
    for (const std::int64_t length : {0, 1, 4095, 4096}) {
        CHECK(at(length).steps == plain.steps);
        CHECK(at(length).stage == 0);
    }
    CHECK(at(4097).steps != plain.steps);
    CHECK(at(4097).stage != 0);
    CHECK(at(4098).stage != at(4097).stage);
    CHECK(at(4098).steps != at(4097).steps);
    // α = 4·2 − 3 at twice the length.
    CHECK(at(8192).inv_freq.back() == Approx(plain.inv_freq.back() / 5).epsilon(1e-15));
    CHECK(at(8192).inv_freq.front() == 1);
}

TEST_CASE("dynamic refuses parameters that make no sense", "[dynamic_ntk]") {
    const auto validate = [](double factor, std::int64_t length) {
        rw::DynamicNtk{.factor = factor, .original_length = length}.validate({});
    };
    CHECK_NOTHROW(validate(0.5, 1));
    CHECK_REFUSED(validate(0, 4096), "dynamic", "factor", "got 0");
    CHECK_REFUSED(validate(-4, 4096), "dynamic", "factor", "got -4");
    CHECK_REFUSED(validate(std::numeric_limits<double>::quiet_NaN(), 4096), "dynamic", "factor", "nan");
    CHECK_REFUSED(validate(std::numeric_limits<double>::infinity(), 4096), "dynamic", "factor", "inf");
    CHECK_REFUSED(validate(4, 0), "dynamic", "needs original_length, the trained context length");
    CHECK_REFUSED(validate(4, -1), "dynamic", "original_length", "got -1");
}
