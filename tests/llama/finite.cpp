#include <ropewalk/llama/batch.hpp>

#include <cmath>
#include <limits>
#include <vector>

#include "support/catch.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"

TEST_CASE("first_not_finite finds infinities and NaNs of any payload, and nothing else", "[llama]") {
    SEEDED(numbers);
    std::vector<float> values(1000);
    for (int i = 0; i < 200; ++i) {
        for (float& x : values) {
            do {
                x = ropewalk::detail::bit_cast<float>(static_cast<std::uint32_t>(numbers.bits()));
            } while (!std::isfinite(x));
        }
        for (const float x : {std::numeric_limits<float>::max(), std::numeric_limits<float>::denorm_min(), -0.0F})
            values[static_cast<std::size_t>(numbers.integer(0, 999))] = numbers.coin() ? x : -x;
        CHECK(ropewalk::llama::detail::first_not_finite(values) == -1);
        const std::int64_t first = numbers.integer(0, 999), later = numbers.integer(first, 999);
        for (const std::int64_t at : {later, first}) {
            const auto sign_and_payload = static_cast<std::uint32_t>(numbers.coin() ? 0 : numbers.bits()) & 0x807fffffU;
            values[static_cast<std::size_t>(at)] = ropewalk::detail::bit_cast<float>(sign_and_payload | 0x7f800000U);
        }
        CHECK(ropewalk::llama::detail::first_not_finite(values) == first);
    }
    CHECK(ropewalk::llama::detail::first_not_finite({}) == -1);
}

TEST_CASE("logits that are not finite are reported with position and token", "[llama]") {
    std::vector<float> logits(3 * 5, 1.0F);
    CHECK_NOTHROW(ropewalk::llama::detail::check_logits(logits, 5, 7));
    logits[2 * 5 + 3] = -std::numeric_limits<float>::infinity();
    CHECK_REFUSED(ropewalk::llama::detail::check_logits(logits, 5, 7), "position 9 ", "-inf for token id 3");
}
