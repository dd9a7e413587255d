#include <ropewalk/core/suggestion.hpp>

#include <array>

#include "support/catch.hpp"

namespace detail = ropewalk::detail;

TEST_CASE("the edit distance counts insertions, deletions, replacements and swaps", "[suggestion]") {
    struct example {
        std::string_view a, b;
        std::size_t distance;
    };
    for (const auto& [a, b, distance] : {example{"linear", "linear", 0},
                                         {"linear", "LINEAR", 0},
                                         {"linaer", "linear", 1},
                                         {"liner", "linear", 1},
                                         {"linnear", "linear", 1},
                                         {"lineas", "linear", 1},
                                         {"ca", "abc", 3},
                                         {"", "yarn", 4},
                                         {"", "", 0},
                                         {"kitten", "sitting", 3}}) {
        INFO(a << " and " << b);
        CHECK(detail::edit_distance(a, b) == distance);
        CHECK(detail::edit_distance(b, a) == distance);
    }
}

TEST_CASE("only near names are suggested, and the nearest of them", "[suggestion]") {
    constexpr std::array<std::string_view, 5> known{"k", "yarn", "linear", "randomized", "randomized_sorted"};
    CHECK(detail::nearest_name("linaer", known) == "linear");
    CHECK(detail::nearest_name("randomised", known) == "randomized");
    CHECK(detail::nearest_name("randomize_sorted", known) == "randomized_sorted");
    CHECK(detail::nearest_name("yran", known) == "yarn");
    CHECK(detail::nearest_name("K", known) == "k");
    for (const char* const far : {"", "x", "barn2", "lin", "rope", "sorted"}) {
        INFO(far);
        CHECK(detail::nearest_name(far, known).empty());
    }
    CHECK(detail::nearest_name(std::string(100000, 'x'), known).empty());
}

TEST_CASE("a hint lists the known names, with a suggestion if there is one", "[suggestion]") {
    constexpr std::array<std::string_view, 2> known{"linear", "yarn"};
    CHECK(detail::name_hint("linaer", known) == ": did you mean 'linear'? Choose from linear, yarn");
    CHECK(detail::suggestion("yran", known) == ": did you mean 'yarn'?");
    CHECK(detail::suggestion("power", known).empty());
    CHECK(detail::name_hint("power", known) == ": choose from linear, yarn");
}
