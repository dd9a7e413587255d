#include <ropewalk/core/error.hpp>

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <type_traits>

#include "support/catch.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;
namespace detail = ropewalk::detail;

TEST_CASE("format replaces each {} by the next argument", "[error]") {
    CHECK(detail::format("nothing") == "nothing");
    CHECK(detail::format("{} and {}", 1, "two") == "1 and two");
    CHECK(detail::format("{}", 0.1) == "0.10000000000000001");
    CHECK(detail::format("{} {}", 1) == "1 {}");
    CHECK(detail::format("{}", 1, 2) == "1");
    CHECK(detail::format("{{}}", 3) == "{3}");
}

TEST_CASE("format shows numbers, text and addresses", "[error]") {
    constexpr auto least = std::numeric_limits<std::int64_t>::min();
    CHECK(detail::format("{} {}", least, std::numeric_limits<std::uint64_t>::max()) ==
          "-9223372036854775808 18446744073709551615");
    CHECK(detail::format("{} {} {} {}", 1e300, 0.5F, -0.0, 1.0) == "1.0000000000000001e+300 0.5 -0 1");
    CHECK(detail::format("{}", std::numeric_limits<double>::infinity()) == "inf");
    CHECK(detail::format("{} {}", true, 'x') == "1 x");
    const std::string text = "text";
    CHECK(detail::format("{} {} {}", text, std::string_view(text).substr(1), text.c_str()) == "text ext text");
    const auto* const address = reinterpret_cast<const float*>(std::uintptr_t{0xbeef0});
    CHECK(detail::format("{}", address) == "0xbeef0");
}

TEST_CASE("a long text is cut to the part around a byte", "[error]") {
    const auto cut = [](const std::string& text, std::size_t at) {
        std::string shown;
        const std::size_t column = detail::excerpt(text, at, 100).append_to(shown);
        return std::pair(shown, column);
    };
    CHECK(cut(std::string(100, 'a'), 99) == std::pair(std::string(100, 'a'), std::size_t{99}));
    std::string text(500, 'a');
    for (const std::size_t at : {0U, 1U, 39U, 40U, 41U, 250U, 459U, 460U, 461U, 499U}) {
        text.assign(500, 'a'), text[at] = 'x';
        const auto [shown, column] = cut(text, at);
        INFO(shown);
        CHECK(shown.size() <= 80 + 6 + 12);
        CHECK(shown[column] == 'x');
        CHECK(shown.ends_with(" (500 bytes)"));
        CHECK(shown.starts_with("...") == (at > 40));
    }
    CHECK(cut(text, 500).second == 3 + 80);
    // No character of UTF-8 is cut.
    for (std::size_t at = 0; at < 303; ++at) {
        std::string many;
        for (int i = 0; i < 101; ++i) many += "…";
        const std::string shown = cut(many, at).first;
        std::size_t whole = 0;
        for (std::size_t i = shown.find("…"); i != std::string::npos; i = shown.find("…", i + 3)) ++whole;
        CHECK(shown.size() ==
              3 * whole + (shown.starts_with("...") ? 3 : 0) + (shown.find("... (") != std::string::npos ? 3 : 0) + 12);
    }
    CHECK(detail::format("{}", std::string(1000, 'a')).size() == 1000);
    CHECK(detail::format("{}", std::string(1001, 'a')) == std::string(80, 'a') + "... (1001 bytes)");
}

TEST_CASE("RW_EXPECTS throws an error with the name of the library and the values", "[error]") {
    static_assert(std::is_base_of_v<std::invalid_argument, rw::error>);
    const auto expects = [](int dim) { RW_EXPECTS(dim % 2 == 0, "rotary_dim must be even, got {}", dim); };
    CHECK_NOTHROW(expects(4));
    CHECK(test::message_of([&] { expects(7); }) == "ropewalk: rotary_dim must be even, got 7");
}

TEST_CASE("RW_EXPECTS is a single statement and evaluates its condition once", "[error]") {
    int evaluated = 0;
    if (evaluated == 0)
        RW_EXPECTS(++evaluated == 1, "not reached");
    else
        FAIL("RW_EXPECTS swallowed the else");
    CHECK(evaluated == 1);
}
