#include <ropewalk/core/geometry.hpp>

#include <limits>

#include "support/catch.hpp"
#include "support/errors.hpp"
#include "support/oracle.hpp"
#include "support/reals.hpp"

namespace rw = ropewalk;
using rw::Geometry;

TEST_CASE("the width is the rotary part of the head", "[geometry]") {
    static_assert(Geometry{.head_dim = 128}.width() == 128 && Geometry{.head_dim = 128}.pairs() == 64);
    static_assert(Geometry{.head_dim = 64, .rotary_dim = 16}.width() == 16);
    static_assert(Geometry{.head_dim = 192, .rotary_offset = 128}.width() == 64);
    Geometry{.head_dim = 2}.validate();
    Geometry{.head_dim = 5, .rotary_dim = 4, .rotary_offset = 1}.validate();
    Geometry{.head_dim = 192, .rotary_dim = 64, .rotary_offset = 128}.validate();
    SUCCEED();
}

TEST_CASE("theta is base^(−2j/width), independent of the rest of the head", "[geometry]") {
    for (const double base : {1e4, 5e5, 1e7}) {
        for (const std::int64_t width : {2, 6, 64, 80, 128, 512}) {
            const auto exact = oracle::plain(base, width);
            const Geometry g{.head_dim = width + 24, .rotary_dim = width, .rotary_offset = 8, .base = base};
            double worst = 0;
            for (std::int64_t j = 0; j < g.pairs(); ++j) {
                worst = std::max(worst, test::relative_error(g.theta(j), exact[static_cast<std::size_t>(j)]));
            }
            CHECK(worst <= 0x1p-58);
        }
    }
}

TEST_CASE("an invalid geometry is rejected with its values", "[geometry]") {
    const auto validate = [](const Geometry& g) { g.validate(); };
    CHECK_REFUSED(validate({.head_dim = 127}), "even", "127");
    CHECK_REFUSED(validate({.head_dim = 128, .rotary_dim = 33}), "even", "33");
    CHECK_REFUSED(validate({.head_dim = 128, .rotary_offset = 1}), "even", "127");
    CHECK_REFUSED(validate({.head_dim = 64, .rotary_dim = 66}), "66", "64");
    CHECK_REFUSED(validate({.head_dim = 64, .rotary_dim = 34, .rotary_offset = 32}), "34", "32", "64");
    CHECK_REFUSED(validate({.head_dim = 64, .rotary_dim = -2}), "-2");
    CHECK_REFUSED(validate({.head_dim = 1 << 20}), "65536", "1048576");
    CHECK_REFUSED(validate({.head_dim = 0}), "head_dim", "0");
    CHECK_REFUSED(validate({.head_dim = -8}), "head_dim", "-8");
    CHECK_REFUSED(validate({.head_dim = 64, .rotary_offset = 64}), "rotary_offset", "64");
    CHECK_REFUSED(validate({.head_dim = 64, .rotary_offset = -2}), "rotary_offset", "-2");
    CHECK_REFUSED(validate({.base = 1}), "base", "1");
    CHECK_REFUSED(validate({.base = 0}), "base", "0");
    CHECK_REFUSED(validate({.base = -10000}), "base", "-10000");
    CHECK_REFUSED(validate({.base = std::numeric_limits<double>::quiet_NaN()}), "base", "nan");
    CHECK_REFUSED(validate({.base = std::numeric_limits<double>::infinity()}), "base", "inf");
    CHECK_REFUSED(validate({.sequence_length = -1}), "sequence_length", "-1");
    CHECK_REFUSED(validate({.original_length = -1}), "original_length", "-1");
}

TEST_CASE("a rotary_dim near the largest integer does not wrap into the head", "[geometry]") {
    constexpr std::int64_t huge = std::numeric_limits<std::int64_t>::max() - 1;
    CHECK_REFUSED((Geometry{.head_dim = 128, .rotary_dim = huge, .rotary_offset = 64}.validate()),
                  "9223372036854775806");
}
