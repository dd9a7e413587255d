// Invalid parameters of every policy, and the message of each.

#include <ropewalk/encoding.hpp>

#include <cmath>
#include <limits>
#include <numbers>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/effort.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"
#include "support/registry.hpp"

namespace rw = ropewalk;

namespace invalid_parameters_tests {
namespace {

constexpr rw::Geometry head{.head_dim = 8};

struct invalid {
    std::string expression, message;
    rw::Geometry geometry = head;
};

const std::string too_fast = " radians per token: a frequency must be below 2π, one turn";

const std::vector<invalid> cases{
    {"linear:0", "linear needs factor, a positive number: write linear:8"},
    {"linear:-8|power:0.5", "linear: factor must be a positive number, got -8"},
    {"linear:nan", "linear: factor must be a positive number, got nan"},
    {"linear:inf", "linear: factor must be a positive number, got inf"},
    {"power:-0.5", "power: k must lie in [0, 64], got -0.5"},
    {"linear:8|power:65", "power: k must lie in [0, 64], got 65"},
    {"power:nan", "power: k must lie in [0, 64], got nan"},
    {"ntk:0", "ntk needs alpha, a positive number: write ntk:8"},
    {"ntk:-8", "ntk: alpha must be a positive number, got -8"},
    {"ntk:nan", "ntk: alpha must be a positive number, got nan"},
    {"ntk:inf", "ntk: alpha must be a positive number, got inf"},

    {"dynamic:0,original_length=4096", "dynamic needs factor, a positive number: write dynamic:4,original_length=4096"},
    {"dynamic:-4,original_length=4096", "dynamic: factor must be a positive number, got -4"},
    {"dynamic:nan,original_length=4096", "dynamic: factor must be a positive number, got nan"},
    {"dynamic:inf,original_length=4096", "dynamic: factor must be a positive number, got inf"},
    {"dynamic:original_length=4096", "dynamic needs factor, a positive number: write dynamic:4,original_length=4096"},
    {"dynamic:4", "dynamic needs original_length, the trained context length: write dynamic:4,original_length=4096"},
    {"dynamic:4,original_length=-1", "dynamic: original_length must be positive, got -1"},

    {"yarn:0", "yarn needs factor, a positive number: write yarn:8,original_length=4096"},
    {"yarn:nan", "yarn: factor must be a positive number, got nan"},
    {"yarn:inf", "yarn: factor must be a positive number, got inf"},
    {"yarn:8", "yarn needs original_length, the trained context length: write yarn:8,original_length=4096"},
    {"yarn:8,beta_fast=16",
     "yarn needs original_length, the trained context length: write yarn:8,original_length=4096,beta_fast=16"},
    {"yarn:8,original_length=-1", "yarn: original_length must be positive, got -1"},
    {"yarn:8,original_length=4096,beta_fast=0.5", "yarn: beta_fast >= beta_slow > 0 must hold, got 0.5 and 1"},
    {"yarn:8,original_length=4096,beta_fast=inf", "yarn: beta_fast >= beta_slow > 0 must hold, got inf and 1"},
    {"yarn:8,original_length=4096,beta_fast=nan", "yarn: beta_fast >= beta_slow > 0 must hold, got nan and 1"},
    {"yarn:8,original_length=4096,beta_slow=0", "yarn: beta_fast >= beta_slow > 0 must hold, got 32 and 0"},
    {"yarn:8,original_length=4096,beta_slow=nan", "yarn: beta_fast >= beta_slow > 0 must hold, got 32 and nan"},
    {"yarn:1,attention_factor=0", "yarn: attention_factor must be a positive number, got 0"},
    {"yarn:1,attention_factor=nan", "yarn: attention_factor must be a positive number, got nan"},
    {"yarn:1,mscale=-1", "yarn: mscale must not be negative, got -1"},
    {"yarn:1,mscale=inf", "yarn: mscale must not be negative, got inf"},
    {"yarn:1,mscale_all_dim=-2", "yarn: mscale_all_dim must not be negative, got -2"},

    {"llama3:0", "llama3: factor must be a positive number, got 0"},
    {"llama3:nan", "llama3: factor must be a positive number, got nan"},
    {"llama3:inf", "llama3: factor must be a positive number, got inf"},
    {"llama3:low_freq_factor=0", "llama3: high_freq_factor >= low_freq_factor > 0 must hold, got 4 and 0"},
    {"llama3:low_freq_factor=5", "llama3: high_freq_factor >= low_freq_factor > 0 must hold, got 4 and 5"},
    {"llama3:low_freq_factor=nan", "llama3: high_freq_factor >= low_freq_factor > 0 must hold, got 4 and nan"},
    {"llama3:high_freq_factor=inf", "llama3: high_freq_factor >= low_freq_factor > 0 must hold, got inf and 1"},
    {"llama3:high_freq_factor=nan", "llama3: high_freq_factor >= low_freq_factor > 0 must hold, got nan and 1"},
    {"llama3:original_length=0", "llama3: original_length must be positive, got 0"},
    {"llama3:original_length=-8192", "llama3: original_length must be positive, got -8192"},

    {"longrope:[1,1,1],original_length=9", "longrope: short_factor has 3 entries for 4 pairs"},
    {"longrope:long_factor=[1,1,1,1,1],original_length=9", "longrope: long_factor has 5 entries for 4 pairs"},
    {"longrope:[1,1,0,1],original_length=9", "longrope: short_factor must be positive numbers, got 0 at index 2"},
    {"longrope:long_factor=[1,1,1,-1.5],original_length=9",
     "longrope: long_factor must be positive numbers, got -1.5 at index 3"},
    {"longrope:long_factor=[nan,1,1,1],original_length=9",
     "longrope: long_factor must be positive numbers, got nan at index 0"},
    {"longrope:long_factor=[inf,1,1,1],original_length=9",
     "longrope: long_factor must be positive numbers, got inf at index 0"},
    {"longrope:factor=0", "longrope: factor must be a positive number, got 0"},
    {"longrope:factor=nan", "longrope: factor must be a positive number, got nan"},
    {"longrope:factor=4", "longrope needs original_length, the trained context length: add original_length=4096"},
    {"longrope:[1,1,1,1]", "longrope needs original_length, the trained context length: add original_length=4096"},
    {"longrope:factor=4,original_length=1", "longrope: original_length must be above 1, got 1"},
    {"longrope",
     "longrope needs short_factor and long_factor, lists with a number per pair: write "
     "longrope:[…],long_factor=[…],original_length=4096"},
    {"longrope:attention_factor=1,original_length=-3", "longrope: original_length must be above 1, got -3"},
    {"longrope:attention_factor=0", "longrope: attention_factor must be a positive number, got 0"},
    {"longrope:attention_factor=nan", "longrope: attention_factor must be a positive number, got nan"},

    {"proportional:factor=8", "proportional needs partial_rotary_factor, a number in [0, 1]: write proportional:0.25"},
    {"proportional:-0.25", "proportional: partial_rotary_factor must lie in [0, 1], got -0.25"},
    {"proportional:1.25", "proportional: partial_rotary_factor must lie in [0, 1], got 1.25"},
    {"proportional:nan", "proportional: partial_rotary_factor must lie in [0, 1], got nan"},
    {"proportional:0.5,factor=0", "proportional: factor must be a positive number, got 0"},
    {"proportional:0.5,factor=-2", "proportional: factor must be a positive number, got -2"},
    {"proportional:0.5,factor=nan", "proportional: factor must be a positive number, got nan"},
    {"proportional:0.5,factor=inf", "proportional: factor must be a positive number, got inf"},

    {"truncated", "truncated needs length, a number of tokens: write truncated:4096"},
    {"truncated:4096,a=0.1", "truncated: set either length or all of a, b and rho, got length and 1 of the three"},
    {"truncated:a=0.1,b=0.2", "truncated: set either length or all of a, b and rho, got no length and 2 of the three"},
    {"truncated:0", "truncated: length must be a positive number, got 0"},
    {"truncated:-4096", "truncated: length must be a positive number, got -4096"},
    {"truncated:nan", "truncated: length must be a positive number, got nan"},
    {"truncated:a=0.5,b=0.25,rho=0", "truncated: 0 <= a <= b must hold, got a = 0.5 and b = 0.25"},
    {"truncated:a=-0.5,b=0.25,rho=0", "truncated: 0 <= a <= b must hold, got a = -0.5 and b = 0.25"},
    {"truncated:a=0,b=nan,rho=0", "truncated: 0 <= a <= b must hold, got a = 0 and b = nan"},
    {"truncated:a=0,b=0.25,rho=-1", "truncated: rho must not be negative, got -1"},
    {"truncated:a=0,b=0.25,rho=nan", "truncated: rho must not be negative, got nan"},

    {"xpos:0", "xpos: scale_base must be positive, got 0"},
    {"xpos:-512", "xpos: scale_base must be positive, got -512"},
    {"xpos:nan", "xpos: scale_base must be positive, got nan"},
    {"xpos:gamma=0", "xpos: gamma must be a positive number, got 0"},
    {"xpos:gamma=-0.5", "xpos: gamma must be a positive number, got -0.5"},
    {"xpos:gamma=nan", "xpos: gamma must be a positive number, got nan"},
    {"xpos:gamma=inf", "xpos: gamma must be a positive number, got inf"},
    {"xpos:length=-1", "xpos: length must not be negative, got -1"},
    {"xpos:3,gamma=0.5", "xpos: scale_base 3 is too small for gamma 0.5"},

    {"randomized:-1", "randomized: length must lie in [0, 2^30), got -1"},
    {"randomized:1073741824", "randomized: length must lie in [0, 2^30), got 1073741824"},
    {"randomized",
     "randomized: sequence_length is used as the length and must be below 2^30, got 1073741824",
     {.sequence_length = std::int64_t{1} << 30}},
    {"randomized",
     "randomized: sequence_length is used as the length and must be below 2^30, got 4611686018427387904",
     {.sequence_length = std::int64_t{1} << 62}},
    {"randomized:epsilon=-0.5", "randomized: epsilon must lie in [0, 2], got -0.5"},
    {"randomized:epsilon=2.5", "randomized: epsilon must lie in [0, 2], got 2.5"},
    {"randomized:epsilon=nan", "randomized: epsilon must lie in [0, 2], got nan"},
    {"randomized:draw=-1", "randomized: draw must lie in [0, 2^32), got -1"},
    {"randomized:draw=4294967296", "randomized: draw must lie in [0, 2^32), got 4294967296"},
    {"randomized_sorted:0", "randomized_sorted needs range, a number of tokens: write randomized_sorted:65536"},
    {"randomized_sorted:-5", "randomized_sorted: range must lie in [1, 2^31), got -5"},
    {"randomized_sorted:2147483648", "randomized_sorted: range must lie in [1, 2^31), got 2147483648"},
    {"randomized_sorted:100", "randomized_sorted: range 100 is smaller than 101 positions", {.sequence_length = 101}},
    {"randomized_sorted:100,draw=-1", "randomized_sorted: draw must lie in [0, 2^32), got -1"},

    {"mrope:[]", "mrope needs sections, the pairs of t, h and w: write mrope:[16,24,24]"},
    {"mrope:[2,2]", "mrope: sections has 2 entries, expected 3 (t, h and w)"},
    {"mrope:[1,1,1,1]", "mrope: sections has 4 entries, expected 3 (t, h and w)"},
    {"mrope:[1,1,1]", "mrope: sections 1, 1 and 1 must sum to the 4 pairs of a head"},
    {"mrope:[1,2,2]", "mrope: sections 1, 2 and 2 must sum to the 4 pairs of a head"},
    {"mrope:[-1,3,2]",
     "mrope: sections must not be negative and must sum to the pairs of a head, at most 32768, got -1, 3 and 2"},
    {"mrope:[4611686018427387904,4611686018427387904,4611686018427387904]",
     "mrope: sections must not be negative and must sum to the pairs of a head, at most 32768, got "
     "4611686018427387904, "
     "4611686018427387904 and 4611686018427387904"},

    // Frequencies of one turn per token or more.
    {"linear:1e-300", "'linear:1e-300' rotates pair 0 by 9.999999999999999e+299" + too_fast},
    {"linear:4|linear:0.03125", "'linear:4|linear:0.03125' rotates pair 0 by 8" + too_fast},
    {"llama3:1e-300", "'llama3:1e-300' rotates pair 3 by 8.9873423539706443e+296" + too_fast},
    {"ntk:1e-9", "'ntk:1e-09' rotates pair 1 by 100" + too_fast},
    {"proportional:1,factor=0.0625", "'proportional:1,factor=0.0625' rotates pair 0 by 16" + too_fast},
    {"longrope:[1,0.0078125,1,1],original_length=9",
     "'longrope:[1,0.0078125,1,1],original_length=9' rotates pair 1 by 12.800000000000001" + too_fast},
    {"truncated:a=0,b=10,rho=7", "'truncated:a=0,b=10,rho=7' rotates pair 0 by 7" + too_fast},
    {"yarn:0.0009765625,original_length=1024",
     "'yarn:0.0009765625,original_length=1024' rotates pair 1 by 34.200000000000003" + too_fast},
    {"dynamic:1e-9,original_length=1|linear:0.125",
     "'dynamic:1e-09,original_length=1|linear:0.125' rotates pair 0 by 8" + too_fast},
    {"yarn:2,original_length=9,mscale_all_dim=1e300",
     "'yarn:2,original_length=9,mscale_all_dim=1e+300' has a softmax factor of inf: it and its inverse must fit into a "
     "normal float"},
};

}  // namespace

TEST_CASE("every invalid parameter is rejected with its value", "[policy]") {
    for (const auto& [expression, message, geometry] : cases) {
        INFO(expression);
        const auto make = [&g = geometry, &text = expression] { (void)rw::make_encoding(g, text); };
        CHECK(test::message_of(make) == "ropewalk: " + message);
    }
}

TEST_CASE("valid parameters at the bounds of their ranges are accepted", "[policy]") {
    for (const char* const expression :
         {"linear:0.5", "power:64", "ntk:0.5", "dynamic:0.5,original_length=1", "proportional:0",
          "proportional:1,factor=8", "yarn:8,original_length=4096,beta_fast=4,beta_slow=4",
          "longrope:attention_factor=1", "longrope:factor=4,attention_factor=1", "xpos:inf", "randomized",
          "randomized:1073741823", "randomized:epsilon=2", "randomized_sorted:1", "mrope:[2,1,1]", "power:0",
          "linear:1", "yarn:1"}) {
        INFO(expression);
        CHECK_NOTHROW(rw::make_encoding(head, expression));
    }
    CHECK_NOTHROW(rw::make_encoding({.sequence_length = (std::int64_t{1} << 30) - 1}, "randomized"));
    CHECK_NOTHROW(rw::make_encoding({.sequence_length = std::int64_t{1} << 62}, "randomized:16"));
    CHECK_NOTHROW(rw::make_encoding({.sequence_length = 100}, "randomized_sorted:100"));
}

TEST_CASE("parameters that no geometry makes valid are rejected without one", "[policy]") {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    CHECK_REFUSED(rw::Linear{.factor = nan}.validate(), "linear: factor must be a positive number, got nan");
    CHECK_REFUSED((rw::MRope{.sections = {-1, 2, 3}}.validate()), "mrope: sections must not be negative",
                  "-1, 2 and 3");
    CHECK_REFUSED((rw::LongRope{.short_factor = {1, -2}}.validate()), "longrope: short_factor", "-2 at index 1");
    CHECK_REFUSED((rw::Yarn{.factor = 2, .original_length = -1}.validate()),
                  "original_length must be positive, got -1");
    CHECK_REFUSED((rw::DynamicNtk{.factor = 2, .original_length = -1}.validate()), "must be positive, got -1");
    CHECK_REFUSED(rw::XPos{.scale_base = 0}.validate(), "xpos: scale_base must be positive, got 0");
    CHECK_REFUSED(rw::Randomized{.epsilon = 3}.validate(), "randomized: epsilon must lie in [0, 2], got 3");
    // A geometry may complete these.
    CHECK_NOTHROW(rw::Yarn{.factor = 2}.validate());
    CHECK_NOTHROW(rw::DynamicNtk{.factor = 2}.validate());
    CHECK_NOTHROW(rw::LongRope{.short_factor = {1, 2, 3}}.validate());
    CHECK_NOTHROW(rw::MRope{.sections = {16, 24, 24}}.validate());
    test::for_each_policy([]<class P>() {
        if constexpr (requires { P::example().validate(); }) CHECK_NOTHROW(P::example().validate());
    });
}

TEST_CASE("frequencies below one turn per token run as they are reported", "[policy]") {
    SEEDED(numbers);
    int built = 0;
    for (std::int64_t i = 0; i < test::cases(3000); ++i) {
        // Chains of up to four factors over the whole range of a double.
        std::string expression;
        for (std::int64_t count = numbers.integer(1, 4); count > 0; --count) {
            const char* const name = numbers.one_of({"linear:", "ntk:", "llama3:", "proportional:1,factor="});
            const double factor = numbers.coin() ? numbers.logarithmic(1e-300, 1e300) : numbers.logarithmic(0.1, 10);
            expression += (expression.empty() ? "" : "|") + std::string(name) + rw::detail::format("{}", factor);
        }
        INFO(expression);
        rw::Encoding encoding;
        try {
            encoding = rw::make_encoding(head, expression);
        } catch (const rw::error& problem) {
            CHECK(test::holds(problem.what(), {expression.substr(0, 6).c_str(), "pair", "radians per token"}));
            continue;
        }
        ++built;
        for (std::size_t pair = 0; pair < encoding.steps.size(); ++pair) {
            const double ran = std::ldexp(static_cast<double>(encoding.steps[pair]), -64) * 2 * std::numbers::pi;
            CHECK(std::fabs(ran - encoding.inv_freq[pair]) <= 1e-15 * ran + 3.5e-19);
        }
    }
    CHECK(built > test::cases(3000) / 10);
    CHECK_NOTHROW(rw::make_encoding(head, "linear:0.16"));
    // One turn per token, to the last bit of a double, and the next frequency below it.
    CHECK_REFUSED(rw::make_encoding(head, rw::Truncated{.a = 0.0, .b = 9.0, .rho = 6.283185307179587}),
                  "6.28318530717958");
    CHECK_NOTHROW(rw::make_encoding(head, rw::Truncated{.a = 0.0, .b = 9.0, .rho = 6.283185307179586}));
}

TEST_CASE("randomized_sorted draws at most as many positions as its range", "[policy]") {
    std::vector<rw::fixed_position> numbers(101);
    CHECK_THROWS_WITH(rw::RandomizedSorted{.range = 100}.draw_positions(0, numbers),
                      "ropewalk: randomized_sorted: range 100 is smaller than 101 positions");
}

TEST_CASE("a policy without original_length uses that of the geometry", "[policy]") {
    const rw::Geometry trained{.head_dim = 8, .sequence_length = 10000, .original_length = 4096};
    const auto expression_of = [&](const char* policy) { return rw::make_encoding(trained, policy).expression; };
    CHECK(expression_of("yarn:8") == "yarn:8,original_length=4096");
    CHECK(expression_of("dynamic:4") == "dynamic:4,original_length=4096");
    CHECK(expression_of("longrope:factor=4") == "longrope:factor=4,original_length=4096");
    CHECK(expression_of("yarn:8,beta_slow=2|linear:2") == "yarn:8,original_length=4096,beta_slow=2|linear:2");
    CHECK(rw::make_encoding(trained, "yarn:8").steps == rw::make_encoding(head, "yarn:8,original_length=4096").steps);
    CHECK(rw::make_encoding(trained, rw::DynamicNtk{.factor = 4}).stage == 10000 - 4096);
    // A stated length, the default of llama3 and policies that need none are unchanged.
    CHECK(expression_of("yarn:8,original_length=2048") == "yarn:8,original_length=2048");
    CHECK(expression_of("llama3") == "llama3");
    CHECK(expression_of("yarn:1") == "yarn:1");
    CHECK(expression_of("longrope:attention_factor=1") == "longrope:attention_factor=1");
}

}  // namespace invalid_parameters_tests
