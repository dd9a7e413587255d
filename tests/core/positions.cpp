#include <ropewalk/core/positions.hpp>

#include <array>
#include <vector>

#include "support/catch.hpp"

namespace rw = ropewalk;
using kind = rw::positions::kind;

namespace {

/// Returns whether every function refers to six ids without a copy.
template <class Ids>
bool refers_to(Ids& six, kind expected) {
    const auto same = [&](const rw::positions& p, std::int64_t axes, std::int64_t rows) {
        return p.source == expected && p.data == std::data(six) && p.axes == axes && p.rows == rows &&
               p.count == 6 / axes / rows;
    };
    return same(rw::ids(six), 1, 1) && same(rw::ids(six, 2), 1, 2) && same(rw::axis_ids(six), 3, 1) &&
           same(rw::axis_ids(six, 2), 3, 2) && same(rw::ids(std::span(six)), 1, 1) &&
           same(rw::ids(std::span(six), 2), 1, 2) && same(rw::axis_ids(std::span(six)), 3, 1) &&
           same(rw::axis_ids(std::span(six), 2), 3, 2);
}

template <class I>
bool refers_to_all(kind expected) {
    std::vector<I> list(6);
    std::array<I, 6> array{};
    I plain[6] = {};
    const std::vector<I> fixed_list(6);
    const std::array<I, 6> fixed_array{};
    std::span<I> span(list);
    return refers_to(list, expected) && refers_to(array, expected) && refers_to(plain, expected) &&
           refers_to(fixed_list, expected) && refers_to(fixed_array, expected) && refers_to(span, expected);
}

}  // namespace

TEST_CASE("ids come from vectors, arrays and spans, mutable or not", "[positions]") {
    CHECK(refers_to_all<std::int32_t>(kind::ids32));
    CHECK(refers_to_all<std::int64_t>(kind::ids64));
    std::vector<rw::fixed_position> fixed(6);
    CHECK(rw::ids(fixed, 3).count == 2);
    CHECK(rw::ids(std::span(fixed)).source == kind::fixed);
}

TEST_CASE("positions refer to the ids", "[positions]") {
    const std::vector<std::int32_t> narrow{1, 2, 3, 4, 5, 6};
    const std::vector<std::int64_t> wide{7, 8};
    const std::vector<rw::fixed_position> fixed{{1}, {2}, {3}};
    const rw::positions start = rw::offset{-5};
    CHECK((start.source == kind::offset && start.first == -5));
    const rw::positions moved = rw::shift{-7};
    CHECK((moved.source == kind::shift && moved.first == -7 && moved.data == nullptr && !moved.ragged()));
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
    CHECK_FALSE(ragged.offsets.exists());
    const auto following = rw::cu_seqlens(narrow, wide);
    CHECK((following.ragged() && following.first == 0 && following.offsets.data == wide.data() &&
           following.offsets.count == 2));
    CHECK((following.offsets.wide && !rw::cu_seqlens(wide, narrow).offsets.wide));
    const auto per_row = rw::offsets(narrow);
    CHECK((per_row.source == kind::row_offsets && per_row.offsets.data == narrow.data() && !per_row.offsets.wide));
    CHECK((per_row.offsets.count == 6 && rw::offsets(wide).offsets.wide && !per_row.ragged()));
}

TEST_CASE("rows of ids have equal lengths", "[positions]") {
    const std::vector<std::int32_t> seven(7);
    CHECK_THROWS_WITH(rw::ids(std::span<const std::int32_t>(seven), 2),
                      "ropewalk: 7 positions cannot be split into 2 equal rows");
    CHECK_THROWS_WITH(rw::ids(std::span<const std::int32_t>(seven), 0),
                      "ropewalk: 7 positions cannot be split into 0 equal rows");
    CHECK(rw::ids(std::span<const std::int32_t>(seven), 7).count == 1);
}

TEST_CASE("several ids per token are ordered by axis, then by row", "[positions]") {
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
    CHECK_THROWS_WITH(rw::axis_ids(all.first(7)), "ropewalk: 7 positions cannot be split into 3 axes of 1 equal rows");
    CHECK_THROWS_WITH(rw::axis_ids(all, 5), "ropewalk: 24 positions cannot be split into 3 axes of 5 equal rows");
    CHECK_THROWS_WITH(rw::axis_ids(all, 0), "ropewalk: 24 positions cannot be split into 3 axes of 0 equal rows");
    CHECK(rw::axis_ids(all.first(0)).count == 0);
}
