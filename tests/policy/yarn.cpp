#include <ropewalk/policy/yarn.hpp>

#include <cmath>

#include "frequency_error.hpp"
#include "support/catch.hpp"

namespace rw = ropewalk;

namespace yarn_tests {
namespace {

const rw::Geometry llama{.head_dim = 128};

rw::Yarn policy_of(const oracle::ramp& r) {
    return {.factor = r.factor,
            .original_length = r.original,
            .beta_fast = r.fast,
            .beta_slow = r.slow,
            .truncate = r.truncate};
}

double error_of(const oracle::ramp& r, const rw::Geometry& g) {
    return test::worst_frequency_error(policy_of(r), g, oracle::yarn(test::plain(g), g.base, r));
}

/// Returns a policy of DeepSeek-V3's factor with changed parameters.
template <class F>
rw::Yarn with(const F& change) {
    rw::Yarn policy{.factor = 40, .original_length = 4096};
    change(policy);
    return policy;
}

}  // namespace

TEST_CASE("yarn agrees with the oracle over geometries and parameters", "[yarn]") {
    SEEDED(numbers);
    const auto draw = [&](const rw::Geometry& g) {
        oracle::ramp r{.factor = numbers.logarithmic(0.5, 128),
                       .original = numbers.integer(64, 1 << 17),
                       .truncate = numbers.coin()};
        if (numbers.coin()) {
            r.slow = numbers.logarithmic(0.05, 100);
            r.fast = r.slow * numbers.logarithmic(1.1, 100);
        }
        return std::pair{policy_of(r), oracle::yarn(test::plain(g), g.base, r)};
    };
    const double worst = test::worst_random_error(numbers, 300, draw);
    CHECK(worst <= 0x1p-48);  // a steep ramp multiplies the error of its bounds by d / (high − low)
    CHECK(worst > 0);
}

TEST_CASE("yarn with the parameters of published models", "[yarn]") {
    // Llama 2 at 64k, Qwen2.5, DeepSeek-V3 (64 of 192 elements) and gpt-oss (fractional bounds).
    CHECK(error_of({.factor = 16, .original = 4096}, llama) <= 0x1p-56);
    CHECK(error_of({.factor = 4, .original = 32768}, {.head_dim = 128, .base = 1e6}) <= 0x1p-56);
    CHECK(error_of({.factor = 40, .original = 4096}, {.head_dim = 192, .rotary_dim = 64, .rotary_offset = 128}) <=
          0x1p-56);
    CHECK(error_of({.factor = 32, .original = 4096, .truncate = false}, {.head_dim = 64, .base = 150000}) <= 0x1p-54);
    // By hand: 128·ln(4096/(2π·32))/(2·ln 10000) = 20.94…, and 45.03… for one rotation.
    const rw::Yarn policy{.factor = 16, .original_length = 4096};
    CHECK(policy.low(llama) == rw::real(20));
    CHECK(policy.high(llama) == rw::real(46));
    CHECK(policy(llama.theta(20), 20, llama) == llama.theta(20));
    CHECK(policy(llama.theta(21), 21, llama) < llama.theta(21));
    CHECK(policy(llama.theta(45), 45, llama) > llama.theta(45) / rw::real(16));
    CHECK(policy(llama.theta(46), 46, llama) == llama.theta(46) / rw::real(16));
    CHECK(policy(llama.theta(63), 63, llama) == llama.theta(63) / rw::real(16));
}

TEST_CASE("yarn with truncate=false has fractional bounds", "[yarn]") {
    const rw::Yarn policy{.factor = 16, .original_length = 4096, .truncate = false};
    CHECK(static_cast<double>(policy.low(llama)) == Approx(20.94448).epsilon(1e-5));
    CHECK(static_cast<double>(policy.high(llama)) == Approx(45.02689).epsilon(1e-5));
}

TEST_CASE("yarn whose bounds fall on one pair is a step there", "[yarn]") {
    // beta_fast = beta_slow makes a ramp of width 0, which Transformers replaces by 0.001.
    for (const bool truncate : {true, false}) {
        const oracle::ramp r{.factor = 8, .original = 4096, .fast = 4, .slow = 4, .truncate = truncate};
        INFO("truncate " << truncate);
        CHECK(error_of(r, llama) <= 0x1p-48);
    }
    // An original length within which every pair rotates less than once: both bounds are clamped to 0.
    const rw::Yarn policy = policy_of({.factor = 8, .original = 6, .fast = 32, .slow = 1});
    CHECK(policy.low(llama) == rw::real(0));
    CHECK(policy.high(llama) == rw::real(0));
    CHECK(policy(llama.theta(0), 0, llama) == llama.theta(0));
    CHECK(policy(llama.theta(1), 1, llama) == llama.theta(1) / rw::real(8));
    CHECK(error_of({.factor = 8, .original = 6}, llama) <= 0x1p-56);
    // An original length whose ramp ends after the last element.
    const rw::Geometry narrow{.head_dim = 8};
    CHECK(policy_of({.factor = 8, .original = std::int64_t{1} << 40}).high(narrow) == rw::real(7));
    CHECK(error_of({.factor = 8, .original = std::int64_t{1} << 40}, narrow) <= 0x1p-56);
}

TEST_CASE("yarn's attention factor: stated, by mscale, or 0.1 ln(factor) + 1", "[yarn]") {
    const auto factor = [](const rw::Yarn& policy) { return policy.attention_factor(llama); };
    CHECK(factor({.factor = 16, .original_length = 4096}) == Approx(oracle::mscale(16, 1)).epsilon(1e-15));
    CHECK(factor({.factor = 16, .original_length = 4096}) == Approx(1.2772588722239782).epsilon(1e-15));
    CHECK(factor({.factor = 1, .original_length = 4096}) == 1);
    CHECK(factor({.factor = 0.5, .original_length = 4096}) == 1);
    CHECK(factor(with([](auto& p) { p.attention_factor_given = 1.5; })) == 1.5);
    CHECK(factor(with([](auto& p) { p.attention_factor_given = 1.5, p.mscale = 1, p.mscale_all_dim = 2; })) == 1.5);
    CHECK(factor(with([](auto& p) { p.mscale = 1.0, p.mscale_all_dim = 1.0; })) == 1);
    CHECK(factor(with([](auto& p) { p.mscale = 0.707, p.mscale_all_dim = 0.5; })) ==
          Approx(oracle::mscale(40, 0.707) / oracle::mscale(40, 0.5)).epsilon(1e-15));
    // One mscale without the other has no effect.
    CHECK(factor(with([](auto& p) { p.mscale = 0.707; })) == Approx(oracle::mscale(40, 1)).epsilon(1e-15));
    CHECK(factor(with([](auto& p) { p.mscale_all_dim = 0.707; })) == Approx(oracle::mscale(40, 1)).epsilon(1e-15));
    CHECK(factor(with([](auto& p) { p.mscale = 1, p.mscale_all_dim = 0; })) ==
          Approx(oracle::mscale(40, 1)).epsilon(1e-15));
}

TEST_CASE("yarn's softmax factor is DeepSeek's m(mscale_all_dim)²", "[yarn]") {
    const auto softmax = [](const rw::Yarn& policy) { return policy.softmax_factor(llama); };
    const auto v3 = with([](auto& p) { p.mscale = 1.0, p.mscale_all_dim = 1.0; });
    CHECK(softmax(v3) == Approx(1.874).epsilon(3e-4));
    CHECK(softmax(v3) == Approx(std::pow(oracle::mscale(40, 1), 2)).epsilon(1e-15));
    CHECK(softmax(with([](auto& p) { p.mscale_all_dim = 0.707; })) ==
          Approx(std::pow(oracle::mscale(40, 0.707), 2)).epsilon(1e-15));
    CHECK(softmax({.factor = 40, .original_length = 4096}) == 1);
    CHECK(softmax(with([](auto& p) { p.mscale = 1.0; })) == 1);
    CHECK(softmax(with([](auto& p) { p.factor = 1, p.mscale_all_dim = 1.0; })) == 1);
    const rw::Encoding e = rw::make_encoding(llama, v3);
    CHECK(e.softmax_factor == softmax(v3));
    CHECK(e.attention_factor == 1);
}

}  // namespace yarn_tests
