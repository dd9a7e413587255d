#include <ropewalk/core/bits.hpp>

#include <bit>
#include <cmath>
#include <limits>

#include "support/catch.hpp"
#include "support/effort.hpp"
#include "support/random.hpp"

namespace detail = ropewalk::detail;

TEST_CASE("is_finite and is_nan agree with the standard library", "[bits]") {
    SEEDED(numbers);
    using limits = std::numeric_limits<double>;
    std::vector<double> values{0.0,
                               -0.0,
                               1.0,
                               limits::max(),
                               limits::lowest(),
                               limits::denorm_min(),
                               limits::min(),
                               limits::infinity(),
                               -limits::infinity(),
                               limits::quiet_NaN(),
                               -limits::quiet_NaN(),
                               std::bit_cast<double>(0x7ff0000000000001U)};
    for (std::int64_t i = 0; i < test::cases(10000); ++i) {
        const std::uint64_t bits = numbers.bits();
        values.push_back(std::bit_cast<double>(numbers.coin() ? bits : bits | 0x7ff0000000000000U));
    }
    for (const double value : values) {
        INFO(std::hex << std::bit_cast<std::uint64_t>(value));
        CHECK(detail::is_finite(value) == std::isfinite(value));
        CHECK(detail::is_nan(value) == std::isnan(value));
    }
    static_assert(detail::is_finite(1.5) && !detail::is_finite(limits::infinity()) &&
                  detail::is_nan(limits::quiet_NaN()));
}
