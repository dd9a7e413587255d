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

/// Returns registered policy `index` with random parameters, some of them left at their defaults.
template <std::size_t I = 0>
rw::any_policy random_policy(test::random& numbers, std::size_t index) {
    if constexpr (I < std::variant_size_v<rw::any_policy>) {
        if (index != I) return random_policy<I + 1>(numbers, index);
        std::variant_alternative_t<I, rw::any_policy> policy{};
        const auto maybe = [&](const auto& parameter) {
            if (numbers.coin()) randomize(numbers, policy.*parameter.member);
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
    return std::visit([](const auto& selected) { return rw::describe(selected); }, policy);
}

struct invalid {
    std::string expression;
    std::size_t character;  ///< under which the mark stands, from 1
    std::string problem;    ///< followed by " at character …"
    std::string hint{};
};

}  // namespace

TEST_CASE("describe and parse_policies undo each other for random policies and parameters", "[expression]") {
    SEEDED(numbers);
    for (std::int64_t i = 0; i < test::cases(20000); ++i) {
        std::vector<rw::any_policy> policies;
        std::string text;
        for (std::int64_t count = numbers.integer(1, 4); count > 0; --count) {
            const auto index = static_cast<std::size_t>(numbers.integer(0, std::variant_size_v<rw::any_policy> - 1));
            policies.push_back(random_policy(numbers, index));
            text.append(text.empty() ? "" : "|").append(describe(policies.back()));
        }
        INFO(text);
        const auto back = rw::parse_policies(text);
        REQUIRE(back.size() == policies.size());
        for (std::size_t k = 0; k < back.size(); ++k) REQUIRE(same(back[k], policies[k]));
    }
}

TEST_CASE("expressions read as documented, and policies have short descriptions", "[expression]") {
    struct example {
        const char* expression;
        rw::any_policy policy;
        const char* description;
    };
    const std::vector<example> examples{
        {"default", rw::Default{}, "default"},
        {"linear", rw::Linear{}, "linear"},
        {"linear:8", rw::Linear{.factor = 8}, "linear:8"},
        {"linear:factor=8", rw::Linear{.factor = 8}, "linear:8"},
        {"power:0.1", rw::Power{.k = 0.1}, "power:0.1"},
        {"truncated:4096", rw::Truncated{.length = 4096.0}, "truncated:4096"},
        {"truncated:rho=1e-3,b=0.5,a=0", rw::Truncated{.length = {}, .a = 0.0, .b = 0.5, .rho = 1e-3},
         "truncated:a=0,b=0.5,rho=0.001"},
        {"xpos:512", rw::XPos{.scale_base = 512}, "xpos"},
        {"xpos:length=16384", rw::XPos{.length = 16384}, "xpos:length=16384"},
        {"xpos:128,length=16384", rw::XPos{.scale_base = 128, .length = 16384}, "xpos:128,length=16384"},
        {"randomized:16384,seed=1", rw::Randomized{.length = 16384, .seed = 1}, "randomized:16384,seed=1"},
        {"randomized_sorted:65536,draw=3,seed=-1", rw::RandomizedSorted{.range = 65536, .seed = -1, .draw = 3},
         "randomized_sorted:65536,seed=-1,draw=3"},
        {"yarn:8,original_length=4096", rw::Yarn{.factor = 8, .original_length = 4096}, "yarn:8,original_length=4096"},
        {"yarn:truncate=false,attention_factor=1", rw::Yarn{.truncate = false, .attention_factor_given = 1},
         "yarn:truncate=false,attention_factor=1"},
        {"yarn:truncate=true", rw::Yarn{}, "yarn"},
        {"mrope:[16,24,24]", rw::MRope{.sections = {16, 24, 24}}, "mrope:[16,24,24]"},
        {"mrope:interleaved=true,sections=[24,20,20]", rw::MRope{.sections = {24, 20, 20}, .interleaved = true},
         "mrope:[24,20,20],interleaved=true"},
        {"mrope:[]", rw::MRope{}, "mrope"},
        {"longrope:[1,1.5],long_factor=[2,1e2],factor=32,original_length=4096",
         rw::LongRope{.short_factor = {1, 1.5}, .long_factor = {2, 100}, .factor = 32, .original_length = 4096},
         "longrope:[1,1.5],long_factor=[2,100],factor=32,original_length=4096"},
    };
    for (const auto& [expression, policy, description] : examples) {
        INFO(expression);
        CHECK(same(rw::parse_policies(expression).at(0), policy));
        CHECK(describe(policy) == description);
    }
    const auto chain = rw::parse_policies("linear:4|truncated:4096");
    REQUIRE(chain.size() == 2);
    CHECK(same(chain[0], rw::Linear{.factor = 4}));
    CHECK(same(chain[1], rw::Truncated{.length = 4096.0}));
}

TEST_CASE("an error in a long expression shows the part around the wrong character", "[expression]") {
    const auto repeated = [](const std::string& text, int count) {
        std::string result;
        for (int i = 0; i < count; ++i) result += text;
        return result;
    };
    const std::string expression = repeated("linear:8|", 20000) + "linaer:4" + repeated("|linear:8", 20000);
    const std::string message = test::message_of([&] { rw::parse_policies(expression); });
    INFO(message);
    CHECK(message.size() < 600);
    CHECK(test::holds(message,
                      {"unknown policy 'linaer' at character 180001", "did you mean 'linear'", "(360008 bytes)"}));
    const std::string line = message.substr(message.find("\n") + 1), mark = line.substr(line.find("\n") + 1);
    CHECK(line.substr(mark.size() - 1, 8) == "linaer:4");
    for (const std::string& text :
         {std::string(5000, 'a'), std::string(5000, 'A'), "linear:" + std::string(5000, 'a') + "=3",
          "linear:" + repeated("8,factor=", 700), "linear:" + std::string(5000, '9') + "|x"}) {
        const std::string other = test::message_of([&] { rw::parse_policies(text); });
        INFO(other);
        CHECK((!other.empty() && other.size() < 600));
    }
}

TEST_CASE("an error marks the wrong character", "[expression]") {
    const std::vector<invalid> cases{
        {"linear:", 8, "expected a number"},
        {"linear:eight", 8, "expected a number"},
        {"linear:factor=", 15, "expected a number"},
        {"linear:+8", 8, "expected a number"},
        {"linear:8,", 10, "expected '=' and a value"},
        {"linear:8,9", 10, "expected '=' and a value"},
        {"linear:8 ", 9, "expected '|', ',' or the end"},
        {"linear=8", 7, "expected '|', ',' or the end"},
        {"linear:8:9", 9, "expected '|', ',' or the end"},
        {"linear:0x10", 9, "expected '|', ',' or the end"},
        {"default:3", 9, "policy 'default' has no parameters"},
        {"default:x=3", 9, "policy 'default' has no parameters"},
        {"randomized:1.5", 13, "expected '|', ',' or the end"},
        {"xpos:length=abc", 13, "expected a whole number"},
        {"linear:1e999", 8, "number out of range"},
        {"randomized:99999999999999999999", 12, "number out of range"},
        {"truncated:a=0,b=0,rho=", 23, "expected a number"},
        {"linear:4,factor=8", 10, "parameter 'factor' is given twice"},
        {"xpos:gamma=1,gamma=2", 14, "parameter 'gamma' is given twice"},
        // Lists and words.
        {"mrope:16,24,24", 7, "expected '[' and a list"},
        {"mrope:", 7, "expected '[' and a list"},
        {"mrope:sections=", 16, "expected '[' and a list"},
        {"mrope:[16,24,24", 16, "expected ',' or ']'"},
        {"mrope:[16 24]", 10, "expected ',' or ']'"},
        {"mrope:[16.5,24]", 10, "expected ',' or ']'"},
        {"mrope:[", 8, "expected a whole number"},
        {"mrope:[16,]", 11, "expected a whole number"},
        {"mrope:[,16]", 8, "expected a whole number"},
        {"mrope:[99999999999999999999]", 8, "number out of range"},
        {"mrope:[1,2,3]]", 14, "expected '|', ',' or the end"},
        {"longrope:[1,x]", 13, "expected a number"},
        {"mrope:interleaved=1", 19, "expected true or false"},
        {"mrope:interleaved=yes", 19, "expected true or false"},
        {"mrope:interleaved=", 19, "expected true or false"},
        {"mrope:interleaved=True", 19, "expected true or false"},
        {"yarn:8,truncate=truefalse", 17, "expected true or false"},
        {"mrope:[1],sections=[2]", 11, "parameter 'sections' is given twice"},
        // Names.
        {"linaer:8", 1, "unknown policy 'linaer'", ": did you mean 'linear'? Choose from default, linear, power, "},
        {"linear:8|yarm", 10, "unknown policy 'yarm'", ": did you mean 'yarn'? Choose from default, "},
        {"liNear:8", 1, "unknown policy 'li'", ": choose from default, linear, "},
        {"linear:8|foo:1", 10, "unknown policy 'foo'", ": choose from default, linear, "},
        {"linear:8,facto=9", 10, "policy 'linear' has no parameter 'facto'",
         ": did you mean 'factor'? Choose from factor"},
        {"yarn:8,orignal_length=4096", 8, "policy 'yarn' has no parameter 'orignal_length'",
         ": did you mean 'original_length'? Choose from factor, original_length, beta_fast, "},
        {"xpos:k=3", 6, "policy 'xpos' has no parameter 'k'", ": choose from scale_base, gamma, length"},
        {"", 1, "expected the name of a policy, got the end", ": choose from default, linear, "},
        {"LINEAR:8", 1, "expected the name of a policy, got 'LINEAR'", ": did you mean 'linear'? "},
        {" linear:8", 1, "expected the name of a policy, got ' linear'", ": did you mean 'linear'? "},
        {"Power|linear:1", 1, "expected the name of a policy, got 'Power'", ": did you mean 'power'? "},
        {"linear:8|", 10, "expected the name of a policy, got the end", ": choose from "},
        {"linear:8| power:1", 10, "expected the name of a policy, got ' power'", ": did you mean 'power'? "},
        {"linear:8||power:1", 10, "expected the name of a policy, got '|'", ": choose from "},
        {"|linear:8", 1, "expected the name of a policy, got '|'", ": choose from "},
        {"8", 1, "expected the name of a policy, got '8'", ": choose from "},
    };
    for (const auto& [expression, character, problem, hint] : cases) {
        const std::string message = test::message_of([&text = expression] { rw::parse_policies(text); });
        INFO("expression '" << expression << "', message: '" << message << "'");
        CHECK(message.starts_with("ropewalk: " + problem + " at character " + std::to_string(character) + hint));
        CHECK(message.ends_with("\n  " + expression + "\n  " + std::string(character - 1, ' ') + "^"));
    }
}
