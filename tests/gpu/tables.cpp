#include "trial.hpp"

#include "support/catch.hpp"
#include "support/tables.hpp"

namespace rw = ropewalk;
using rows_are = rw::cos_sin_table::rows_are;

namespace tables_tests {
namespace {

constexpr rw::Geometry head{.head_dim = 88, .rotary_dim = 80, .rotary_offset = 8};

/// A call by the table, whose token number t of the batch must use row lines[t].
test::trial trial_of(test::random& numbers, const test::foreign_table& f, rows_are order,
                     const std::vector<std::int64_t>& lines) {
    test::trial one;
    one.by.ours = rw::make_encoding(head, "linear:3");
    one.type = test::random_type(numbers), one.layout = f.layout;
    one.q = {2, 5, 4, 88};
    one.in_place = numbers.coin();
    one.device = test::random_device(numbers);
    one.options.direction = numbers.one_of({rw::direction::forward, rw::direction::inverse, rw::direction::adjoint});
    one.options.table = f.table(order);
    one.map = [&f, lines, direction = one.options.direction](std::int64_t pair, std::int64_t token, oracle::role) {
        const auto at = static_cast<std::size_t>(lines[static_cast<std::size_t>(token)] * f.pairs + pair);
        return oracle::unit{f.cos[at], direction == rw::direction::forward ? f.sin[at] : -f.sin[at]};
    };
    return one;
}

}  // namespace

TEST_CASE("tables by index and by token, f32 and bf16, a column a pair or an element", "[gpu]") {
    SEEDED(numbers);
    const std::vector<std::int32_t> ids{19, 0, 5, 5, 17, 3, 2, 1, 0, 12};
    const std::vector<std::int64_t> same(ids.begin(), ids.end());
    for (const rw::element_type type : {rw::element_type::f32, rw::element_type::bf16}) {
        for (const rw::layout_kind layout : test::all_layouts) {
            for (const bool doubled : {false, true}) {
                const test::foreign_table f(numbers, type, layout, 20, 40, doubled);
                test::trial one = trial_of(numbers, f, rows_are::by_index, {11, 12, 13, 14, 15, 11, 12, 13, 14, 15});
                one.where = rw::offset{11};
                CHECK(test::problem_of(one, numbers) == "");
                one = trial_of(numbers, f, rows_are::by_token, {0, 1, 2, 3, 4, 0, 1, 2, 3, 4});
                one.where = rw::offset{11};
                CHECK(test::problem_of(one, numbers) == "");
                one = trial_of(numbers, f, rows_are::by_index, same);
                one.where = rw::ids(std::span<const std::int32_t>(ids), 2);
                CHECK(test::problem_of(one, numbers) == "");
            }
        }
    }
}

TEST_CASE("a table by token may have rows of its own for every batch row", "[gpu]") {
    SEEDED(numbers);
    const test::foreign_table f(numbers, rw::element_type::f32, rw::layout_kind::half_split, 10, 40, true);
    test::trial one = trial_of(numbers, f, rows_are::by_token, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
    one.options.table.rows = 5, one.options.table.batch = 2, one.options.table.stride_batch = 5 * f.stride;
    CHECK(test::problem_of(one, numbers) == "");
}

TEST_CASE("a ragged batch looks its rows up by index", "[gpu]") {
    SEEDED(numbers);
    const test::foreign_table f(numbers, rw::element_type::bf16, rw::layout_kind::interleaved, 8, 40, false);
    const std::vector<std::int32_t> starts{0, 2, 2, 5};
    test::trial one = trial_of(numbers, f, rows_are::by_index, {3, 4, 3, 4, 5});
    one.q.batch = 1;
    one.where = rw::cu_seqlens(std::span<const std::int32_t>(starts), 3);
    CHECK(test::problem_of(one, numbers) == "");
}

TEST_CASE("an index outside the table takes its nearest row", "[gpu]") {
    SEEDED(numbers);
    const test::foreign_table f(numbers, rw::element_type::f32, rw::layout_kind::half_split, 4, 32, false);
    const std::vector<std::int64_t> ids{-5, std::numeric_limits<std::int64_t>::min(), 4, 900,
                                        std::numeric_limits<std::int64_t>::max()};
    const std::vector<std::int64_t> lines{0, 0, 3, 3, 3};
    const test::extents size{1, 5, 2, 64};
    test::array q(rw::element_type::f32, size, numbers);
    auto exact = q.values();
    const rw::Encoding e = rw::make_encoding({.head_dim = 64});
    test::memory_log log;
    log.watch(q);
    test::run_on_host(
        f.layout,
        rw::gpu::make_plan(f.layout, q.tensor(), test::none(), q.tensor(), test::none(), e,
                           rw::ids(std::span<const std::int64_t>(ids)), {.table = f.table(rows_are::by_index)}),
        log);
    const auto shape = test::shape_of(size, e.geometry, f.layout);
    oracle::apply(shape, exact, [&](std::int64_t pair, std::int64_t token) {
        const auto at = static_cast<std::size_t>(lines[static_cast<std::size_t>(token)] * f.pairs + pair);
        return oracle::unit{f.cos[at], f.sin[at]};
    });
    CHECK(test::compare(q, exact, shape).first_problem == "");
}

}  // namespace tables_tests
