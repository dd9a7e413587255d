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
