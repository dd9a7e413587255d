// Directions, caller-supplied tables and re-rotations.
#include "cases/rotation_case.hpp"
#include "support/tables.hpp"

namespace rw = ropewalk;
using rw::direction;
using rows_are = rw::cos_sin_table::rows_are;

namespace direction_cases {
namespace {

constexpr rw::Geometry head{.head_dim = 72, .rotary_dim = 64, .rotary_offset = 8};
/// More pairs than the kernel parameters of a plain rotation hold.
constexpr rw::Geometry wide_head{.head_dim = 528};

/// A case by a table. Token t of the batch must use row rows[t].
test::rotation_case table_case(test::random& numbers, const test::random_table& t, rows_are order,
                               const test::extents& size, std::vector<std::int64_t> rows) {
    const rw::Geometry g{.head_dim = 2 * t.pairs + 8, .rotary_dim = 2 * t.pairs, .rotary_offset = 8};
    test::rotation_case c = test::random_case(numbers, {rw::make_encoding(g, "linear:3"), {}});
    c.layout = t.layout, c.q = size, c.q.heads = 4, c.q.head_dim = g.head_dim;
    c.direction = numbers.one_of({direction::forward, direction::inverse, direction::adjoint});
    c.table = t.table(order);
    c.map = [&t, rows = std::move(rows), to = c.direction](std::int64_t pair, std::int64_t token) {
        const auto at = static_cast<std::size_t>(rows[static_cast<std::size_t>(token)] * t.pairs + pair);
        return oracle::unit{t.cos[at], to == direction::forward ? t.sin[at] : -t.sin[at]};
    };
    return c;
}

/// The row of every token: first, first + 1, … for every batch row.
std::vector<std::int64_t> rows_from(const test::extents& size, std::int64_t first) {
    std::vector<std::int64_t> rows;
    for (std::int64_t i = 0; i < size.batch * size.tokens; ++i) rows.push_back(first + i % size.tokens);
    return rows;
}

}  // namespace

TEST_CASE("every direction, with factors and magnitudes", "[directions]") {
    SEEDED(numbers);
    for (const test::twin& t : test::twins_of({head, wide_head})) {
        for (const rw::element_type type : test::types_of_backend()) {
            for (const rw::layout_kind layout : test::all_layouts) {
                for (const direction to :
                     {direction::forward, direction::inverse, direction::adjoint, direction::inverse_adjoint}) {
                    if (test::reduced() && numbers.integer(0, 3) > 0) continue;
                    test::rotation_case c = test::random_case(numbers, t, 9, numbers.integer(0, 4000));
                    c.type = type, c.layout = layout, c.direction = to;
                    CHECK_THAT(rotate(c, numbers), matches(c));
                }
            }
        }
    }
}

TEST_CASE("tables of every type by index and by token, one column per pair or per element", "[directions][table]") {
    SEEDED(numbers);
    const test::extents size{2, 5, 4, 0};
    for (const rw::element_type table_type : test::types_of_backend()) {
        for (const rw::layout_kind layout : test::all_layouts) {
            for (const bool doubled : {false, true}) {
                for (const rw::element_type type : test::types_of_backend()) {
                    if (table_type == rw::element_type::f64 && type != table_type) continue;
                    const test::random_table t(numbers, table_type, layout, 30, numbers.one_of({20, 40}), doubled);
                    const auto check = [&](test::rotation_case c, const test::token_positions& positions) {
                        c.type = type, c.target.positions = positions;
                        CHECK_THAT(rotate(c, numbers), matches(c));
                    };
                    const auto offset = test::from_offset(size, 11);
                    check(table_case(numbers, t, rows_are::by_index, size, rows_from(size, 11)), offset);
                    check(table_case(numbers, t, rows_are::by_token, size, rows_from(size, 0)), offset);
                    const std::vector<std::int32_t> ids{29, 0, 5, 5, 17, 3, 2, 1, 0, 12};
                    check(table_case(numbers, t, rows_are::by_index, size, {ids.begin(), ids.end()}),
                          test::from_ids(size, ids, 2));
                    check(table_case(numbers, t, rows_are::by_index, size, {29, 0, 5, 5, 17, 29, 0, 5, 5, 17}),
                          test::from_ids(size, std::vector<std::int32_t>(ids.begin(), ids.begin() + 5), 1));
                }
            }
        }
    }
}

TEST_CASE("a table by token may have rows for every batch row", "[directions][table]") {
    SEEDED(numbers);
    const test::random_table t(numbers, rw::element_type::f32, rw::layout_kind::half_split, 14, 20, true);
    const test::extents size{2, 7, 4, 0};
    test::rotation_case c = table_case(numbers, t, rows_are::by_token, size, rows_from({1, 14, 4, 0}, 0));
    c.table.rows = 7, c.table.batch = 2, c.table.stride_batch = 7 * t.stride;
    c.target.positions = test::from_offset(size, -9);
    CHECK_THAT(rotate(c, numbers), matches(c));
}

TEST_CASE("a ragged batch uses the rows of its indices", "[directions][table]") {
    SEEDED(numbers);
    const test::random_table t(numbers, rw::element_type::bf16, rw::layout_kind::interleaved, 8, 40, false);
    test::rotation_case c = table_case(numbers, t, rows_are::by_index, {1, 5, 4, 0}, {3, 4, 3, 4, 5});
    c.target.positions = test::ragged<std::int32_t>({2, 0, 3}, 3);
    CHECK_THAT(rotate(c, numbers), matches(c));
}

TEST_CASE("re-rotation moves keys to another encoding and other positions", "[directions][rerotate]") {
    SEEDED(numbers);
    const auto check = [&](const test::twin& source, std::int64_t before, const test::twin& target,
                           std::int64_t after) {
        test::rotation_case c = test::random_case(numbers, target, 9, after);
        c.q.heads = 0, c.k_heads = 3, c.source = {source, test::from_offset(c.q, before)};
        CHECK_THAT(rotate(c, numbers), matches(c));
        c.source->positions = test::random_ids<std::int32_t>(numbers, c.q, 0, 3000, c.q.batch);
        c.target.positions = test::random_ids<std::int64_t>(numbers, c.q, -1000, 3000, 1);
        CHECK_THAT(rotate(c, numbers), matches(c));
    };
    for (const rw::Geometry& g : {head, wide_head}) {
        std::vector<test::twin> all = test::twins_of({g});
        all.push_back(test::linear_twin(g, 8));
        all.push_back(test::xpos_twin(g, {.scale_base = 300, .gamma = 0.6, .length = 1000}));
        for (std::int64_t i = 0; i < test::cases(60); ++i) {
            const auto any = [&] { return all[static_cast<std::size_t>(numbers.integer(0, std::ssize(all) - 1))]; };
            check(any(), numbers.integer(0, 3000), any(), numbers.integer(-1000, 3000));
        }
        const test::twin &plain = all[0], &linear = all[4], &xpos = all[2], &steep = all[5];
        check(linear, 2147483000, plain, -2147483000);
        check(plain, 0, plain, 123456);
        check(plain, 77, plain, 77);
        check(xpos, 100, xpos, 2000);
        check(xpos, 1500, steep, 1500);
        check(plain, 1000, xpos, 1000);
        check(steep, 1000, linear, 900);
    }
}

TEST_CASE("re-rotation between several positions per token and one", "[directions][rerotate][mrope]") {
    SEEDED(numbers);
    const rw::Geometry g{.head_dim = 72, .rotary_dim = 64, .rotary_offset = 4, .base = 1e6};
    const test::encoded_at chunked = test::mrope(g, {8, 12, 12}), interleaved = test::mrope(g, {12, 10, 10}, true),
                           plain{test::plain_twin(g), {}};
    for (const auto& [source, target] : {std::pair{&chunked, &interleaved}, {&plain, &chunked}, {&chunked, &plain}}) {
        for (const rw::element_type type : test::types_of_backend()) {
            for (const rw::layout_kind layout : test::all_layouts) {
                test::rotation_case c = test::random_case(numbers, target->encoding, 9, 7);
                c.type = type, c.layout = layout, c.q.heads = 0, c.k_heads = 3;
                c.target.axes = target->axes, c.source = *source;
                c.source->positions = test::from_offset(c.q, 7);
                if (!source->axes.empty())
                    c.source->positions =
                        test::random_axis_ids<std::int64_t>(numbers, c.q, -2147483647, 2147483647, c.q.batch);
                if (!target->axes.empty())
                    c.target.positions = test::random_axis_ids<std::int32_t>(numbers, c.q, 0, 90000, c.q.batch);
                CHECK_THAT(rotate(c, numbers), matches(c));
            }
        }
    }
}

}  // namespace direction_cases
