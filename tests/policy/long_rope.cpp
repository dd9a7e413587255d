#include <ropewalk/policy/long_rope.hpp>

#include <cmath>
#include <limits>

#include "support/catch.hpp"
#include "support/effort.hpp"
#include "support/encodings.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;

namespace {

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN(),
                 infinity = std::numeric_limits<double>::infinity();

std::vector<double> random_list(test::random& numbers, std::int64_t count) {
    std::vector<double> list;
    for (std::int64_t i = 0; i < count; ++i) list.push_back(numbers.logarithmic(0.5, 100));
    return list;
}

rw::Encoding at(const rw::LongRope& policy, std::int64_t length) {
    return rw::make_encoding({.head_dim = 8, .sequence_length = length}, policy);
}

const rw::LongRope phi{
    .short_factor = {1, 1.25, 1.5, 2}, .long_factor = {1, 4, 16, 64}, .factor = 32, .original_length = 4096};

}  // namespace

TEST_CASE("longrope divides by the list that the sequence length selects", "[long_rope]") {
    SEEDED(numbers);
    double worst = 0;
    for (std::int64_t i = 0; i < test::cases(200); ++i) {
        rw::Geometry g{.head_dim = 2 * numbers.integer(1, 256), .base = test::random_base(numbers)};
        const rw::LongRope policy{.short_factor = random_list(numbers, g.pairs()),
                                  .long_factor = random_list(numbers, g.pairs()),
                                  .factor = 32,
                                  .original_length = numbers.integer(2, 8192)};
        const bool beyond = numbers.coin();
        g.sequence_length =
            beyond ? policy.original_length + numbers.integer(1, 100000) : numbers.integer(0, policy.original_length);
        const auto exact =
            oracle::divided(oracle::plain(g.base, g.width()), beyond ? policy.long_factor : policy.short_factor);
        worst = std::max(worst, test::worst_frequency_error(policy, g, exact));
    }
    UNSCOPED_INFO("worst relative error " << worst);
    CHECK(worst <= 0x1p-58);
}

TEST_CASE("longrope switches strictly beyond the original length", "[long_rope]") {
    const rw::Encoding short_one = at(phi, 0), long_one = at(phi, 1 << 20);
    CHECK(short_one.steps != long_one.steps);
    CHECK(at(phi, 4096).steps == short_one.steps);
    CHECK(at(phi, 4096).stage == short_one.stage);
    CHECK(at(phi, 4097).steps == long_one.steps);
    CHECK(at(phi, 4097).stage == long_one.stage);
    CHECK(short_one.stage != long_one.stage);
    // The magnitude does not switch.
    CHECK(at(phi, 4096).attention_factor == at(phi, 4097).attention_factor);
}

TEST_CASE("an empty list stands for ones", "[long_rope]") {
    const rw::LongRope only_long{.long_factor = {2, 2, 2, 2}, .factor = 2, .original_length = 4096};
    CHECK(at(only_long, 4096).steps == rw::make_encoding({.head_dim = 8}).steps);
    CHECK(at(only_long, 4097).steps == rw::make_encoding({.head_dim = 8}, rw::Linear{.factor = 2}).steps);
}

TEST_CASE("longrope's attention factor is √(1 + ln s / ln L) unless given", "[long_rope]") {
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

TEST_CASE("longrope refuses parameters that make no sense", "[long_rope]") {
    const auto validate = [](const auto& spoil) {
        rw::LongRope policy = phi;
        spoil(policy);
        policy.validate({.head_dim = 8});
    };
    CHECK_NOTHROW(validate([](auto&) {}));
    CHECK_REFUSED(validate([](auto& p) { p.short_factor.pop_back(); }), "longrope", "short_factor", "3", "4 pairs");
    CHECK_REFUSED(validate([](auto& p) { p.long_factor.push_back(1); }), "longrope", "long_factor", "5", "4 pairs");
    CHECK_REFUSED(validate([](auto& p) { p.short_factor[2] = 0; }), "longrope", "short_factor", "got 0 at index 2");
    CHECK_REFUSED(validate([](auto& p) { p.long_factor[3] = -1.5; }), "longrope", "long_factor", "got -1.5 at index 3");
    CHECK_REFUSED(validate([](auto& p) { p.long_factor[0] = not_a_number; }), "longrope", "long_factor", "nan");
    CHECK_REFUSED(validate([](auto& p) { p.long_factor[0] = infinity; }), "longrope", "long_factor", "inf");
    CHECK_REFUSED(validate([](auto& p) { p.factor = 0; }), "longrope", "factor", "got 0");
    CHECK_REFUSED(validate([](auto& p) { p.factor = not_a_number; }), "longrope", "factor", "nan");
    CHECK_REFUSED(validate([](auto& p) { p.original_length = 0; }), "longrope", "needs original_length, the trained context length");
    CHECK_REFUSED(validate([](auto& p) { p.original_length = 1; }), "longrope", "original_length", "got 1");
    CHECK_REFUSED(validate([](auto& p) { p = {.original_length = -3}; }), "longrope", "original_length", "got -3");
    CHECK_REFUSED(validate([](auto& p) { p.attention_factor_given = 0; }), "longrope", "attention_factor", "got 0");
    CHECK_REFUSED(validate([](auto& p) { p.attention_factor_given = not_a_number; }), "longrope", "attention_factor",
                  "nan");
}
