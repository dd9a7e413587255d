#include <ropewalk/policy/linear.hpp>

#include "frequency_error.hpp"
#include "support/catch.hpp"

namespace rw = ropewalk;

TEST_CASE("linear divides every frequency by the factor", "[linear]") {
    SEEDED(numbers);
    const auto draw = [&](const rw::Geometry& g) {
        const double factor = numbers.logarithmic(0.01, 1000);
        return std::pair{rw::Linear{.factor = factor}, oracle::linear(test::plain(g), factor)};
    };
    CHECK(test::worst_random_error(numbers, 200, draw) <= 0x1p-58);
}
