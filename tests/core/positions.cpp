#include <ropewalk/core/positions.hpp>

#include <vector>

#include "support/catch.hpp"

namespace rw = ropewalk;
using kind = rw::positions::kind;

TEST_CASE("positions remember where the indices are", "[positions]") {
    const std::vector<std::int32_t> narrow{1, 2, 3, 4, 5, 6};
    const std::vector<std::int64_t> wide{7, 8};
    const std::vector<rw::fixed_position> fixed{{1}, {2}, {3}};
    const rw::positions start = rw::offset{-5};
    CHECK((start.source == kind::offset && start.first == -5));
    const auto a = rw::ids(narrow);
    CHECK((a.source == kind::ids32 && a.data == narrow.data() && a.count == 6 && a.rows == 1));
    const auto b = rw::ids(wide);
    CHECK((b.source == kind::ids64 && b.data == wide.data() && b.count == 2));
    const auto c = rw::ids(fixed);
    CHECK((c.source == kind::fixed && c.count == 3));
    const auto rows = rw::ids(std::span<const std::int32_t>(narrow), 2);
    CHECK((rows.rows == 2 && rows.count == 3 && rows.stride_row == 3));
    const auto ragged = rw::cu_seqlens(narrow, 10);
    CHECK((ragged.source == kind::cu_seqlens32 && ragged.first == 10 && ragged.count == 6));
    CHECK(rw::cu_seqlens(wide).source == kind::cu_seqlens64);
}

TEST_CASE("rows of ids have one length", "[positions]") {
    const std::vector<std::int32_t> seven(7);
    CHECK_THROWS_WITH(rw::ids(std::span<const std::int32_t>(seven), 2),
                      "ropewalk: 7 positions make no 2 rows of one length");
    CHECK_THROWS_WITH(rw::ids(std::span<const std::int32_t>(seven), 0),
                      "ropewalk: 7 positions make no 0 rows of one length");
    CHECK(rw::ids(std::span<const std::int32_t>(seven), 7).count == 1);
}

TEST_CASE("several indices a token lie axis by axis, row by row", "[positions]") {
    std::vector<std::int64_t> wide(24);
    const std::span<const std::int64_t> all(wide);
    const auto shared = rw::axis_ids(all);
    CHECK((shared.source == kind::ids64 && shared.data == wide.data() && shared.axes == 3 && shared.rows == 1));
    CHECK((shared.count == 8 && shared.stride_axis == 8));
    const auto rows = rw::axis_ids(all, 4);
    CHECK((rows.axes == 3 && rows.rows == 4 && rows.count == 2 && rows.stride_row == 2 && rows.stride_axis == 8));
    const std::vector<std::int32_t> narrow(6);
    CHECK(rw::axis_ids(std::span<const std::int32_t>(narrow), 2).source == kind::ids32);
    CHECK(rw::ids(all).axes == 1);
    CHECK_THROWS_WITH(rw::axis_ids(all.first(7)), "ropewalk: 7 positions make no 3 axes of 1 rows of one length");
    CHECK_THROWS_WITH(rw::axis_ids(all, 5), "ropewalk: 24 positions make no 3 axes of 5 rows of one length");
    CHECK_THROWS_WITH(rw::axis_ids(all, 0), "ropewalk: 24 positions make no 3 axes of 0 rows of one length");
    CHECK(rw::axis_ids(all.first(0)).count == 0);
}
