// Element types, layouts, widths, orders of the axes, numbers of heads and alignment.
#include <set>

#include "cases/rotation_case.hpp"

namespace rw = ropewalk;

TEST_CASE("every type, layout and width of the rotary part, anywhere in a head", "[shapes]") {
    SEEDED(numbers);
    std::set<int> accesses;
    std::vector<std::int64_t> widths{64, 80, 96, 128, 192, 256, 512};
    for (std::int64_t width = 2; width <= 62; width += 2) widths.push_back(width);
    for (const std::int64_t width : widths) {
        std::vector<rw::Geometry> heads = test::heads_of_width(width);
        for (const rw::element_type type : test::types_of_backend()) {
            for (const rw::layout_kind layout : test::all_layouts) {
                bool in_place = numbers.coin();
                // Every width, type and layout is visited; a reduced run tries one head of each.
                const std::int64_t only = test::reduced() ? numbers.integer(0, std::ssize(heads) - 1) : -1;
                for (std::int64_t i = 0; i < std::ssize(heads); ++i) {
                    if (only >= 0 && i != only) continue;
                    test::rotation_case c =
                        test::case_at(test::plain_twin(heads[static_cast<std::size_t>(i)]), 1000003);
                    c.type = type, c.layout = layout, c.in_place = in_place = !in_place;
                    c.axes =
                        numbers.one_of({test::order::bshd, test::order::bshd, test::order::bhsd, test::order::padded});
                    const test::rotated result = rotate(c, numbers);
                    CHECK_THAT(result, matches(c));
                    accesses.insert(result.access_bytes);
                }
            }
        }
    }
    if (!accesses.contains(0)) CHECK((accesses == std::set<int>{2, 4, 8, 16}));
}

TEST_CASE("heads as wide as the kernel parameters allow", "[shapes]") {
    SEEDED(numbers);
    for (const rw::Geometry& head : test::heads_of_width(1024)) {
        if (head.width() > 1024) continue;
        for (const rw::element_type type : test::types_of_backend()) {
            test::rotation_case c = test::random_case(numbers, test::plain_twin(head), 3, 1000000);
            c.type = type;
            CHECK_THAT(rotate(c, numbers), matches(c));
        }
    }
}

TEST_CASE("every order of the axes and number of heads, in place and out of place", "[shapes]") {
    SEEDED(numbers);
    for (std::int64_t repeat = test::cases(8); repeat > 0; --repeat) {
        for (const rw::element_type type : test::types_of_backend()) {
            for (const rw::layout_kind layout : test::all_layouts) {
                for (const test::order axes : test::all_orders) {
                    for (const bool in_place : {true, false}) {
                        const auto heads = test::heads_of_width(numbers.one_of<std::int64_t>({6, 20, 64, 128}));
                        test::rotation_case c = test::random_case(
                            numbers, test::plain_twin(heads[static_cast<std::size_t>(numbers.integer(0, 6))]), 19,
                            70000);
                        c.type = type, c.layout = layout, c.axes = axes, c.in_place = in_place;
                        c.k_heads = numbers.integer(0, 5);
                        c.q.heads = c.k_heads == 0 ? numbers.integer(1, 40) : c.k_heads * numbers.integer(0, 8);
                        CHECK_THAT(rotate(c, numbers), matches(c));
                    }
                }
            }
        }
    }
}

TEST_CASE("tensors without tokens or heads", "[shapes]") {
    SEEDED(numbers);
    for (const test::extents& size : {test::extents{0, 3, 2, 64}, {2, 0, 2, 64}, {2, 3, 0, 64}}) {
        test::rotation_case c = test::case_at(test::plain_twin({.head_dim = 64}), 7);
        c.q = size, c.k_heads = 0;
        CHECK_THAT(rotate(c, numbers), matches(c));
    }
}

TEST_CASE("an address that is not aligned takes a narrower access", "[shapes]") {
    SEEDED(numbers);
    for (const rw::element_type type : test::types_of_backend()) {
        for (const rw::layout_kind layout : test::all_layouts) {
            for (std::int64_t shift = 0; shift < 9; ++shift) {
                test::rotation_case c = test::case_at(test::plain_twin({.head_dim = 64}), 11);
                c.type = type, c.layout = layout, c.shift = shift, c.in_place = numbers.coin();
                const test::rotated result = rotate(c, numbers);
                CHECK_THAT(result, matches(c));
                const std::int64_t address = shift * static_cast<std::int64_t>(rw::size_of(type));
                const int widest = address % 16 == 0 ? 16 : address % 8 == 0 ? 8 : address % 4 == 0 ? 4 : 2;
                if (result.access_bytes != 0) CHECK(result.access_bytes == widest);
            }
        }
    }
}
