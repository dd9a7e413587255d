#include <ropewalk/policy/long_rope.hpp>

#include <cmath>

#include <ropewalk/encoding.hpp>

#include "frequency_error.hpp"
#include "support/catch.hpp"

namespace rw = ropewalk;

namespace {

std::vector<double> random_list(test::random& numbers, std::int64_t count) {
    std::vector<double> list;
    for (std::int64_t i = 0; i < count; ++i) list.push_back(numbers.logarithmic(0.5, 100));
    return list;
}

rw::Encoding at_length(const rw::LongRope& policy, std::int64_t length) {
    return rw::make_encoding({.head_dim = 8, .sequence_length = length}, policy);
}

}  // namespace

TEST_CASE("longrope divides by the list that the sequence length selects", "[long_rope]") {
    SEEDED(numbers);
    const auto draw = [&](rw::Geometry& g) {
        const rw::LongRope policy{.short_factor = random_list(numbers, g.pairs()),
                                  .long_factor = random_list(numbers, g.pairs()),
                                  .factor = 32,
                                  .original_length = numbers.integer(2, 8192)};
        const bool beyond = numbers.coin();
        g.sequence_length =
            beyond ? policy.original_length + numbers.integer(1, 100000) : numbers.integer(0, policy.original_length);
        return std::pair{policy, oracle::divided(test::plain(g), beyond ? policy.long_factor : policy.short_factor)};
    };
    CHECK(test::worst_random_error(numbers, 200, draw) <= 0x1p-58);
}

TEST_CASE("longrope switches strictly beyond the original length", "[long_rope]") {
    const rw::LongRope phi{
        .short_factor = {1, 1.25, 1.5, 2}, .long_factor = {1, 4, 16, 64}, .factor = 32, .original_length = 4096};
    const rw::Encoding short_list = at_length(phi, 0), long_list = at_length(phi, 1 << 20);
    CHECK(short_list.steps != long_list.steps);
    CHECK(at_length(phi, 4096).steps == short_list.steps);
    CHECK(at_length(phi, 4096).stage == short_list.stage);
    CHECK(at_length(phi, 4097).steps == long_list.steps);
    CHECK(at_length(phi, 4097).stage == long_list.stage);
    CHECK(short_list.stage != long_list.stage);
    // The attention factor does not switch.
    CHECK(at_length(phi, 4096).attention_factor == at_length(phi, 4097).attention_factor);
}

TEST_CASE("an empty list means ones", "[long_rope]") {
    const rw::LongRope only_long{.long_factor = {2, 2, 2, 2}, .factor = 2, .original_length = 4096};
    CHECK(at_length(only_long, 4096).steps == rw::make_encoding({.head_dim = 8}).steps);
    CHECK(at_length(only_long, 4097).steps == rw::make_encoding({.head_dim = 8}, rw::Linear{.factor = 2}).steps);
}

TEST_CASE("longrope's attention factor is √(1 + ln s / ln L) by default", "[long_rope]") {
    const auto factor = [](double s, std::int64_t length) {
        return rw::LongRope{.factor = s, .original_length = length}.attention_factor({});
    };
    CHECK(factor(32, 4096) == Approx(1.1902380714238083).epsilon(1e-15));  // Phi-3-mini-128k: √(1 + 5/12)
    CHECK(factor(32, 4096) == Approx(std::sqrt(1 + std::log(32.0) / std::log(4096.0))).epsilon(1e-15));
    CHECK(factor(16, 8192) == Approx(std::sqrt(1 + 4.0 / 13)).epsilon(1e-15));
    CHECK(factor(1, 4096) == 1);
    CHECK(factor(0.5, 4096) == 1);
    CHECK(rw::LongRope{.factor = 32, .original_length = 4096, .attention_factor_given = 1.0}.attention_factor({}) == 1);
}
