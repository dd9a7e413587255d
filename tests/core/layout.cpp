#include <ropewalk/core/layout.hpp>

#include <set>

#include "support/catch.hpp"

namespace rw = ropewalk;

TEMPLATE_TEST_CASE("the pairs of a layout contain every element once", "[layout]", rw::half_split, rw::interleaved) {
    for (const std::int64_t pairs : {1, 2, 3, 31, 64}) {
        std::set<std::int64_t> seen;
        for (std::int64_t j = 0; j < pairs; ++j) {
            seen.insert(TestType::first(j, pairs));
            seen.insert(TestType::second(j, pairs));
        }
        CHECK(seen.size() == static_cast<std::size_t>(2 * pairs));
        CHECK(*seen.begin() == 0);
        CHECK(*seen.rbegin() == 2 * pairs - 1);
    }
}

TEST_CASE("half_split pairs (j, j + d/2), interleaved (2j, 2j + 1)", "[layout]") {
    static_assert(rw::half_split::first(3, 64) == 3 && rw::half_split::second(3, 64) == 67);
    static_assert(rw::interleaved::first(3, 64) == 6 && rw::interleaved::second(3, 64) == 7);
    static_assert(rw::kind_of<rw::half_split> == rw::layout_kind::half_split);
    static_assert(rw::kind_of<rw::interleaved> == rw::layout_kind::interleaved);
    static_assert(!rw::Layout<int>);
    CHECK(rw::to_string(rw::layout_kind::half_split) == "half_split");
    CHECK(rw::to_string(rw::layout_kind::interleaved) == "interleaved");
}
