// Shapes that take a loop of their own, and results that do not depend on the shape of the call.
#include "calls.hpp"
#include "cases/rotation_case.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;

TEST_CASE("many wide heads, which exceed the second-level cache in f32", "[shapes]") {
    SEEDED(numbers);
    // Sanitizers use few tokens; [sizes] compares the orders of the loops there without float64.
    const std::int64_t tokens = test::divisor == 1 ? 18 : 2;
    const test::twin middle = test::plain_twin({.head_dim = 320, .rotary_dim = 128, .rotary_offset = 64}),
                     odd = test::plain_twin({.head_dim = 320, .rotary_dim = 314, .rotary_offset = 6});
    for (const rw::element_type type : test::all_types) {
        for (const rw::layout_kind layout : test::all_layouts) {
            for (const test::order axes : {test::order::padded, test::order::bhsd}) {
                const bool in_place = numbers.coin();
                const auto check = [&](const test::twin& t, const test::extents& size, std::int64_t k_heads,
                                       bool is_in_place) {
                    test::rotation_case c = test::case_at(t, 0);
                    c.type = type, c.layout = layout, c.axes = axes, c.in_place = is_in_place;
                    c.q = size, c.k_heads = k_heads, c.target.positions = test::from_offset(size, 1000003);
                    CHECK_THAT(rotate(c, numbers), matches(c));
                };
                check(middle, {1, tokens - 1, 65, 320}, 13, in_place);
                check(odd, {2, tokens / 2, 65, 320}, 5, !in_place);
            }
        }
    }
}

TEST_CASE("q alone, k alone and both give the same bits", "[shapes]") {
    SEEDED(numbers);
    const rw::Encoding e = rw::make_encoding({.head_dim = 64}, rw::XPos{});
    for (const rw::element_type type : test::all_types) {
        test::array q(type, {1, 5, 8, 64}, numbers), k(type, {1, 5, 2, 64}, numbers), q_alone = q, k_alone = k;
        const auto layout = rw::layout_kind::interleaved;
        test::rotate_both(layout, q, k, e, rw::offset{100});
        test::rotate_q(layout, q_alone, e, rw::offset{100});
        test::rotate_k(layout, k_alone, e, rw::offset{100});
        CHECK(q == q_alone);
        CHECK(k == k_alone);
    }
}

TEST_CASE("in place and out of place give the same bits, and so do all orders of the axes", "[shapes]") {
    SEEDED(numbers);
    const rw::Encoding e = rw::make_encoding({.head_dim = 70, .rotary_dim = 66}, rw::Linear{.factor = 2});
    const test::extents size{2, 5, 3, 70};
    for (const rw::element_type type : test::all_types) {
        for (const rw::layout_kind layout : test::all_layouts) {
            const std::vector<double> start = test::array(type, size, numbers).values();
            std::vector<double> first;
            for (const test::order axes : test::all_orders) {
                test::array x(type, size, axes), out(type, size, axes);
                x.set(start);
                rw::dispatch::rotate(layout, x.tensor(), test::none(), out.tensor(), test::none(), e, rw::offset{7});
                test::rotate_q(layout, x, e, rw::offset{7});
                CHECK(x == out);
                if (first.empty()) first = x.values();
                CHECK((x.values() == first));
            }
        }
    }
}

TEST_CASE("a call without any tensor does nothing", "[shapes]") {
    CHECK_NOTHROW(rw::dispatch::rotate(rw::layout_kind::half_split, {}, {}, {}, {}, rw::make_encoding({.head_dim = 8}),
                                       rw::offset{}));
}

TEST_CASE("tensors without elements take no time, and the product of their other extents may overflow", "[shapes]") {
    const rw::Geometry geometry{.head_dim = 8, .sequence_length = 4096};
    const rw::Encoding plain = rw::make_encoding(geometry);
    constexpr auto layout = rw::layout_kind::half_split;
    constexpr std::int64_t many = std::int64_t{1} << 40;
    float data[8]{};
    const std::vector<std::int64_t> three{0, 1, 2}, starts{0, 1, 3};
    for (const char* const expression : {"linear:4", "xpos:512", "randomized:4096"}) {
        const rw::Encoding e = rw::make_encoding(geometry, expression);
        const auto rotate = [&](std::int64_t batch, std::int64_t tokens, const rw::positions& positions) {
            const rw::view<float> q(data, batch, tokens, 0, 8, 0, 0, 8);
            rw::dispatch::rotate(layout, q, {}, q, {}, e, positions);
            rw::dispatch::rerotate(layout, q, q, e, positions, plain, positions);
        };
        INFO(expression);
        CHECK_NOTHROW(rotate(1, many, rw::offset{0}));
        CHECK_NOTHROW(rotate(many, many, rw::offset{0}));
        CHECK_NOTHROW(rotate(many, 3, rw::ids(three)));
        CHECK_NOTHROW(rotate(1, 3, rw::cu_seqlens(starts)));
        // Positions must fit the tokens all the same.
        CHECK_REFUSED(rotate(1, 4, rw::ids(three)), "positions has 3 entries for 4 tokens");
        CHECK_REFUSED(rotate(1, 4, rw::cu_seqlens(starts)), "cu_seqlens ends with 3 but there are 4 tokens");
    }
}
