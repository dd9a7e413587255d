#include <ropewalk/policy/expression.hpp>

#include <bit>
#include <cmath>

#include <ropewalk/encoding.hpp>

#include "support/catch.hpp"
#include "support/effort.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"

namespace rw = ropewalk;

namespace {

double random_double(test::random& numbers) {
    for (;;) {
        const auto value =
            numbers.coin() ? std::bit_cast<double>(numbers.bits()) : std::nearbyint(numbers.uniform(-1e6, 1e6)) / 8;
        if (!std::isnan(value)) return value;
    }
}
void randomize(test::random& numbers, double& value) { value = random_double(numbers); }
void randomize(test::random& numbers, std::int64_t& value) {
    value = static_cast<std::int64_t>(numbers.bits() >> numbers.integer(0, 63));
}
void randomize(test::random& numbers, bool& value) { value = numbers.coin(); }
template <class T>
void randomize(test::random& numbers, std::vector<T>& values) {
    values.resize(static_cast<std::size_t>(numbers.integer(0, 3)));
    for (T& value : values) randomize(numbers, value);
}
template <class T>
void randomize(test::random& numbers, std::optional<T>& value) {
    value.reset();
    if (numbers.coin()) randomize(numbers, value.emplace());
}

/// Any registered policy with random parameters, some of them left as they are.
template <std::size_t I = 0>
rw::any_policy random_policy(test::random& numbers, std::size_t which) {
    if constexpr (I < std::variant_size_v<rw::any_policy>) {
        if (which != I) return random_policy<I + 1>(numbers, which);
        std::variant_alternative_t<I, rw::any_policy> policy{};
        const auto maybe = [&](const auto& one) {
            if (numbers.coin()) randomize(numbers, policy.*one.member);
        };
        std::apply([&](const auto&... each) { (maybe(each), ...); }, policy.parameters);
        return policy;
    } else {
        return {};
    }
}

bool same(const rw::any_policy& a, const rw::any_policy& b) {
    if (a.index() != b.index()) return false;
    return std::visit(
        [&](const auto& left) {
            const auto& right = std::get<std::remove_cvref_t<decltype(left)>>(b);
            bool equal = true;
            std::apply([&](const auto&... each) { ((equal = equal && left.*each.member == right.*each.member), ...); },
                       left.parameters);
            return equal;
        },
        a);
}

std::string describe(const rw::any_policy& policy) {
    return std::visit([](const auto& chosen) { return rw::describe(chosen); }, policy);
}

/// The message names the character, and the mark stands under it.
bool marks(const std::string& expression, std::size_t character, const std::string& problem) {
    const std::string message = test::message_of([&] { rw::parse_policies(expression); });
    INFO("expression '" << expression << "', message: '" << message << "'");
    const std::string where = " at character " + std::to_string(character);
    const std::string mark = "\n  " + expression + "\n  " + std::string(character - 1, ' ') + "^";
    CHECK(message.find(problem) != std::string::npos);
    CHECK(message.find(where) != std::string::npos);
    CHECK(message.ends_with(mark));
    return true;
}

}  // namespace

TEST_CASE("describe and parse_policies undo each other for random policies and parameters", "[expression]") {
    SEEDED(numbers);
    for (std::int64_t i = 0; i < test::cases(20000); ++i) {
        std::vector<rw::any_policy> policies;
        std::string text;
        for (std::int64_t count = numbers.integer(1, 4); count > 0; --count) {
            const auto which = static_cast<std::size_t>(numbers.integer(0, std::variant_size_v<rw::any_policy> - 1));
            policies.push_back(random_policy(numbers, which));
            text.append(text.empty() ? "" : "|").append(describe(policies.back()));
        }
        INFO(text);
        const auto back = rw::parse_policies(text);
        REQUIRE(back.size() == policies.size());
        for (std::size_t k = 0; k < back.size(); ++k) REQUIRE(same(back[k], policies[k]));
    }
}

TEST_CASE("expressions read as they are documented", "[expression]") {
    const auto one = [](const char* text) { return rw::parse_policies(text).at(0); };
    CHECK(same(one("default"), rw::Default{}));
    CHECK(same(one("linear:8"), rw::Linear{.factor = 8}));
    CHECK(same(one("linear:factor=8"), rw::Linear{.factor = 8}));
    CHECK(same(one("power:0.5"), rw::Power{.k = 0.5}));
    CHECK(same(one("truncated:4096"), rw::Truncated{.length = 4096.0}));
    CHECK(same(one("truncated:rho=1e-3,b=0.5,a=0"), rw::Truncated{.length = {}, .a = 0.0, .b = 0.5, .rho = 1e-3}));
    CHECK(same(one("xpos:512"), rw::XPos{.scale_base = 512}));
    CHECK(same(one("xpos:length=16384"), rw::XPos{.length = 16384}));
    CHECK(same(one("randomized:16384,seed=1"), rw::Randomized{.length = 16384, .seed = 1}));
    CHECK(same(one("randomized_sorted:65536,draw=3,seed=-1"),
               rw::RandomizedSorted{.range = 65536, .seed = -1, .draw = 3}));
    CHECK(same(one("yarn:8,original_length=4096"), rw::Yarn{.factor = 8, .original_length = 4096}));
    CHECK(
        same(one("yarn:truncate=false,attention_factor=1"), rw::Yarn{.truncate = false, .attention_factor_given = 1}));
    CHECK(same(one("yarn:truncate=true"), rw::Yarn{}));
    CHECK(same(one("mrope:[16,24,24]"), rw::MRope{.sections = {16, 24, 24}}));
    CHECK(same(one("mrope:interleaved=true,sections=[24,20,20]"),
               rw::MRope{.sections = {24, 20, 20}, .interleaved = true}));
    CHECK(same(one("mrope:[]"), rw::MRope{}));
    CHECK(same(one("longrope:[1,1.5],long_factor=[2,1e2],factor=32,original_length=4096"),
               rw::LongRope{.short_factor = {1, 1.5}, .long_factor = {2, 100}, .factor = 32, .original_length = 4096}));
    const auto chain = rw::parse_policies("linear:4|truncated:4096");
    REQUIRE(chain.size() == 2);
    CHECK(same(chain[0], rw::Linear{.factor = 4}));
    CHECK(same(chain[1], rw::Truncated{.length = 4096.0}));
}

TEST_CASE("descriptions are short", "[expression]") {
    CHECK(rw::describe(rw::Linear{.factor = 8}) == "linear:8");
    CHECK(rw::describe(rw::Linear{}) == "linear");
    CHECK(rw::describe(rw::Power{.k = 0.1}) == "power:0.1");
    CHECK(rw::describe(rw::XPos{.length = 16384}) == "xpos:length=16384");
    CHECK(rw::describe(rw::XPos{.scale_base = 128, .length = 16384}) == "xpos:128,length=16384");
    CHECK(rw::describe(rw::Truncated::neutral()) == "truncated:a=0,b=0,rho=0");
    CHECK(rw::describe(rw::MRope{.sections = {24, 20, 20}, .interleaved = true}) ==
          "mrope:[24,20,20],interleaved=true");
    CHECK(rw::describe(rw::MRope{}) == "mrope");
    CHECK(rw::describe(rw::Yarn{.factor = 32, .original_length = 4096, .truncate = false}) ==
          "yarn:32,original_length=4096,truncate=false");
    CHECK(rw::describe(rw::LongRope{.long_factor = {1.5, 0.1}, .original_length = 4096}) ==
          "longrope:long_factor=[1.5,0.1],original_length=4096");
}

TEST_CASE("an error marks the character that is wrong", "[expression]") {
    marks("linaer:8", 1, "unknown policy 'linaer' at character 1: did you mean 'linear'? Known are default, linear, power");
    marks("liNear:8", 1, "unknown policy 'li' at character 1: known");
    marks("linear:8|foo:1", 10, "unknown policy 'foo'");
    marks("linear:", 8, "expected a number");
    marks("linear:eight", 8, "expected a number");
    marks("linear:factor=", 15, "expected a number");
    marks("linear:+8", 8, "expected a number");
    marks("linear:8,", 10, "expected '='");
    marks("linear:8,9", 10, "expected '='");
    marks("linear:8,facto=9", 10, "'linear' has no parameter 'facto'");
    marks("linear:8 ", 9, "expected '|'");
    marks("linear=8", 7, "expected '|'");
    marks("linear:8:9", 9, "expected '|'");
    marks("linear:0x10", 9, "expected '|'");
    marks("default:3", 9, "'default' has no parameters");
    marks("default:x=3", 9, "'default' has no parameters");
    marks("randomized:1.5", 13, "expected '|'");
    marks("xpos:length=abc", 13, "expected a whole number");
    marks("linear:1e999", 8, "number out of range");
    marks("randomized:99999999999999999999", 12, "number out of range");
    marks("truncated:a=0,b=0,rho=", 23, "expected a number");
}

TEST_CASE("where no name of a policy stands, the error shows what does", "[expression]") {
    marks("", 1, "expected the name of a policy, got the end at character 1: known are default, linear");
    marks("LINEAR:8", 1, "expected the name of a policy, got 'LINEAR' at character 1");
    marks("Linear:8|power:1", 1, "expected the name of a policy, got 'Linear' at character 1");
    marks(" linear:8", 1, "expected the name of a policy, got ' linear' at character 1");
    marks("linear:8|", 10, "expected the name of a policy, got the end at character 10");
    marks("linear:8| power:1", 10, "expected the name of a policy, got ' power' at character 10");
    marks("linear:8||power:1", 10, "expected the name of a policy, got '|' at character 10");
    marks("|linear:8", 1, "expected the name of a policy, got '|' at character 1");
    marks("8", 1, "expected the name of a policy, got '8' at character 1");
}

TEST_CASE("an error in a list or a word marks its character", "[expression]") {
    marks("mrope:16,24,24", 7, "expected '[' and a list");
    marks("mrope:", 7, "expected '[' and a list");
    marks("mrope:sections=", 16, "expected '[' and a list");
    marks("mrope:[16,24,24", 16, "expected ',' or ']'");
    marks("mrope:[16 24]", 10, "expected ',' or ']'");
    marks("mrope:[16.5,24]", 10, "expected ',' or ']'");
    marks("mrope:[", 8, "expected a whole number");
    marks("mrope:[16,]", 11, "expected a whole number");
    marks("mrope:[,16]", 8, "expected a whole number");
    marks("mrope:[99999999999999999999]", 8, "number out of range");
    marks("mrope:[1,2,3]]", 14, "expected '|'");
    marks("longrope:[1,x]", 13, "expected a number");
    marks("mrope:interleaved=1", 19, "expected true or false");
    marks("mrope:interleaved=yes", 19, "expected true or false");
    marks("mrope:interleaved=", 19, "expected true or false");
    marks("mrope:interleaved=True", 19, "expected true or false");
    marks("yarn:8,truncate=truefalse", 17, "expected true or false");
    marks("mrope:[1],sections=[2]", 11, "'sections' is given twice");
}

TEST_CASE("a parameter that is given twice is an error", "[expression]") {
    marks("linear:4,factor=8", 10, "factor");
    marks("xpos:gamma=1,gamma=2", 14, "gamma");
}

TEST_CASE("values that parse but make no sense are refused by the policy", "[expression]") {
    const rw::Geometry g{.head_dim = 64};
    CHECK_REFUSED(rw::make_encoding(g, "linear:0"), "linear", "got 0");
    CHECK_REFUSED(rw::make_encoding(g, "linear:nan"), "linear", "nan");
    CHECK_REFUSED(rw::make_encoding(g, "linear:-8|power:0.5"), "linear", "-8");
    CHECK_REFUSED(rw::make_encoding(g, "linear:8|power:-1"), "power", "-1");
    CHECK(rw::make_encoding(g, "xpos:inf").steps == rw::make_encoding(g, "default").steps);
}
