// cos_sin() of the headers.
#include <ropewalk/cpu/cos_sin.hpp>

#include <cmath>
#include <vector>

#include "support/catch.hpp"
#include "support/encodings.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;

TEMPLATE_TEST_CASE("cos_sin of the headers is within 1.2e-7, at any width and start", "[cos_sin]", rw::half_split,
                   rw::interleaved) {
    SEEDED(numbers);
    double worst = 0;
    for (std::int64_t width = 2; width <= 140; width += 2) {
        const test::twin t = test::random_twin(numbers, {.head_dim = width, .base = test::random_base(numbers)});
        const std::int64_t first = numbers.integer(-2000000000, 2000000000);
        std::vector<float> cos(static_cast<std::size_t>(5 * width)), sin(cos.size());
        rw::cpu::cos_sin<TestType>(t.ours, rw::offset{first}, 5, width, cos, sin);
        for (std::int64_t token = 0; token < 5; ++token) {
            for (std::int64_t j = 0; j < width / 2; ++j) {
                const oracle::unit exact =
                    oracle::cos_sin(t.exact.turns[static_cast<std::size_t>(j)], {first + token, 0});
                for (const std::int64_t column : {TestType::first(j, width / 2), TestType::second(j, width / 2)}) {
                    const auto at = static_cast<std::size_t>(token * width + column);
                    worst = std::max({worst, std::fabs(static_cast<double>(cos[at]) - exact.cos),
                                      std::fabs(static_cast<double>(sin[at]) - exact.sin)});
                }
            }
        }
    }
    CHECK(worst <= 1.2e-7);
    CHECK(worst > 0);
}

TEST_CASE("cos_sin refuses spans that are too short", "[cos_sin]") {
    const rw::Encoding e = rw::make_encoding({.head_dim = 8});
    std::vector<float> cos(7), sin(8);
    CHECK_REFUSED(rw::cpu::cos_sin<rw::half_split>(e, rw::offset{0}, 2, 4, cos, sin), "2 tokens", "8 floats", "7");
    const rw::Encoding wide = rw::make_encoding({.head_dim = 64});
    CHECK_REFUSED(rw::cpu::cos_sin<rw::half_split>(wide, rw::offset{1}, std::int64_t{1} << 59, 32, cos, sin),
                  "576460752303423488 tokens", "32 columns", "got 7 and 8");
}

TEST_CASE("cos_sin refuses another layout and encodings that are not from make_encoding()", "[cos_sin]") {
    const rw::Encoding e = rw::make_encoding({.head_dim = 8, .layout = rw::layout_kind::half_split});
    std::vector<float> cos(8), sin(8);
    CHECK_REFUSED(rw::cpu::cos_sin<rw::interleaved>(e, rw::offset{0}, 1, 8, cos, sin), "half_split", "interleaved");
    CHECK_NOTHROW(rw::cpu::cos_sin<rw::half_split>(e, rw::offset{0}, 1, 8, cos, sin));
    CHECK_NOTHROW(rw::cpu::cos_sin<rw::interleaved>(e, rw::offset{0}, 1, 4, cos, sin));
    CHECK_REFUSED(rw::cpu::cos_sin<rw::half_split>(rw::Encoding{}, rw::offset{0}, 1, 4, cos, sin), "0 pairs", "64");
}
