#include <dispatch/dispatch.hpp>

#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/effort.hpp"
#include "support/encodings.hpp"

namespace rw = ropewalk;
namespace dispatch = ropewalk::dispatch;

namespace {

struct variant {
    rw::element_type type;
    rw::layout_kind layout;
    test::order order;
    bool in_place;
};

/// Rotates q and k together and returns the first thing that is wrong, or "".
std::string problem_of(test::random& numbers, const test::twin& t, const variant& v, const test::extents& size,
                       std::int64_t kv_heads) {
    test::extents kv = size;
    kv.heads = kv_heads;
    test::array q(v.type, size, numbers, v.order), k(v.type, kv, numbers, v.order);
    const test::array q_before = q, k_before = k;
    test::array q_out(v.type, size, v.order), k_out(v.type, kv, v.order);
    const auto q_shape = test::shape_of(size, t.ours.geometry, v.layout),
               k_shape = test::shape_of(kv, t.ours.geometry, v.layout);
    const auto places = test::consecutive(size, 1000003);
    const auto q_exact = oracle::rotate(q_shape, q.values(), t.exact, places),
               k_exact = oracle::rotate(k_shape, k.values(), t.exact, places, oracle::role::key);
    test::array &q_target = v.in_place ? q : q_out, &k_target = v.in_place ? k : k_out;
    dispatch::rotate(v.layout, q.tensor(), k.tensor(), q_target.tensor(), k_target.tensor(), t.ours,
                     rw::offset{1000003});
    if (!q_target.guards_intact() || !k_target.guards_intact()) return "bytes around the output changed";
    if (!v.in_place && !(q == q_before && k == k_before)) return "the input changed";
    const auto q_verdict = test::compare(q_target, q_exact, q_shape),
               k_verdict = test::compare(k_target, k_exact, k_shape);
    return q_verdict.first_problem.empty() ? k_verdict.first_problem : q_verdict.first_problem;
}

std::vector<std::int64_t> widths() {
    std::vector<std::int64_t> result;
    for (std::int64_t width = 2; width <= 62; width += 2) result.push_back(width);
    for (const std::int64_t width : {64, 80, 96, 128, 192, 256, 512}) result.push_back(width);
    return result;
}

void check_widths(test::random& numbers, std::int64_t before, std::int64_t behind) {
    for (const std::int64_t width : widths()) {
        const test::twin t =
            test::plain_twin({.head_dim = before + width + behind, .rotary_dim = width, .rotary_offset = before});
        for (const rw::element_type type : test::all_types) {
            for (const rw::layout_kind layout : test::all_layouts) {
                const variant v{type, layout,
                                numbers.one_of({test::order::bshd, test::order::bhsd, test::order::padded}),
                                numbers.coin()};
                INFO(rw::to_string(type) << ' ' << rw::to_string(layout) << " width " << width << " order "
                                         << static_cast<int>(v.order));
                CHECK(problem_of(numbers, t, v, {2, 3, 4, before + width + behind}, 2) == "");
            }
        }
    }
}

}  // namespace

TEST_CASE("every even width turns, whole heads", "[shapes]") {
    SEEDED(numbers);
    check_widths(numbers, 0, 0);
}

TEST_CASE("every even width turns inside a wider head, and the rest passes through", "[shapes]") {
    SEEDED(numbers);
    check_widths(numbers, 0, 7);
    check_widths(numbers, 5, 0);
    check_widths(numbers, 16, 3);
}

TEST_CASE("every order of the axes, in place and out of place", "[shapes]") {
    SEEDED(numbers);
    const test::twin partial = test::plain_twin({.head_dim = 24, .rotary_dim = 20, .rotary_offset = 2}),
                     whole = test::plain_twin({.head_dim = 64});
    for (const rw::element_type type : test::all_types) {
        for (const rw::layout_kind layout : test::all_layouts) {
            for (const test::order order : test::all_orders) {
                for (const bool in_place : {true, false}) {
                    INFO(rw::to_string(type) << ' ' << rw::to_string(layout) << " order " << static_cast<int>(order)
                                             << " in place " << in_place);
                    CHECK(problem_of(numbers, partial, {type, layout, order, in_place}, {2, 19, 3, 24}, 1) == "");
                    CHECK(problem_of(numbers, whole, {type, layout, order, in_place}, {2, 19, 4, 64}, 2) == "");
                }
            }
        }
    }
}

TEST_CASE("many wide heads, which the second cache does not hold in f32, turn inside and around the middle",
          "[shapes]") {
    SEEDED(numbers);
    // Under sanitizers few tokens: test [sizes] compares the orders of the loops there without float64.
    const std::int64_t tokens = test::divisor == 1 ? 18 : 2;
    const test::twin t = test::plain_twin({.head_dim = 320, .rotary_dim = 128, .rotary_offset = 64}),
                     odd = test::plain_twin({.head_dim = 320, .rotary_dim = 314, .rotary_offset = 6});
    for (const rw::element_type type : test::all_types) {
        for (const rw::layout_kind layout : test::all_layouts) {
            for (const test::order order : {test::order::padded, test::order::bhsd}) {
                const bool in_place = numbers.coin();
                INFO(rw::to_string(type) << ' ' << rw::to_string(layout) << " order " << static_cast<int>(order)
                                         << " in place " << in_place);
                CHECK(problem_of(numbers, t, {type, layout, order, in_place}, {1, tokens - 1, 65, 320}, 13) == "");
                CHECK(problem_of(numbers, odd, {type, layout, order, !in_place}, {2, tokens / 2, 65, 320}, 5) == "");
            }
        }
    }
}

TEST_CASE("q alone, k alone and both give the same bits", "[shapes]") {
    SEEDED(numbers);
    const rw::Encoding e = rw::make_encoding({.head_dim = 64}, rw::XPos{});
    for (const rw::element_type type : test::all_types) {
        test::array q(type, {1, 5, 8, 64}, numbers), k(type, {1, 5, 2, 64}, numbers);
        test::array q_alone = q, k_alone = k;
        const auto layout = rw::layout_kind::interleaved;
        dispatch::rotate(layout, q.tensor(), k.tensor(), q.tensor(), k.tensor(), e, rw::offset{100});
        dispatch::rotate(layout, q_alone.tensor(), test::none(), q_alone.tensor(), test::none(), e, rw::offset{100});
        dispatch::rotate(layout, test::none(), k_alone.tensor(), test::none(), k_alone.tensor(), e, rw::offset{100});
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
            for (const test::order order : test::all_orders) {
                test::array x(type, size, order), out(type, size, order);
                x.set(start);
                dispatch::rotate(layout, x.tensor(), test::none(), out.tensor(), test::none(), e, rw::offset{7});
                dispatch::rotate(layout, x.tensor(), test::none(), x.tensor(), test::none(), e, rw::offset{7});
                CHECK(x == out);
                if (first.empty()) first = x.values();
                CHECK((x.values() == first));
            }
        }
    }
}

TEST_CASE("empty tensors are fine and nothing is written", "[shapes]") {
    SEEDED(numbers);
    const rw::Encoding e = rw::make_encoding({.head_dim = 8});
    for (const test::extents size : {test::extents{0, 3, 2, 8}, test::extents{2, 0, 2, 8}, test::extents{2, 3, 0, 8}}) {
        test::array x(rw::element_type::f32, size, numbers);
        const test::array before = x;
        CHECK_NOTHROW(dispatch::rotate(rw::layout_kind::half_split, x.tensor(), test::none(), x.tensor(), test::none(),
                                       e, rw::offset{}));
        CHECK(x == before);
    }
    CHECK_NOTHROW(dispatch::rotate(rw::layout_kind::half_split, test::none(), test::none(), test::none(), test::none(),
                                   e, rw::offset{}));
}
