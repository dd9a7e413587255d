// Positions in device memory, whose values the host cannot validate.
#include <algorithm>
#include <limits>

#include "cases/rotation_case.hpp"
#include "support/tables.hpp"

namespace rw = ropewalk;

namespace unchecked_cases {
namespace {

constexpr std::int64_t min_int64 = std::numeric_limits<std::int64_t>::min(),
                       max_int64 = std::numeric_limits<std::int64_t>::max();

test::rotation_case unchecked_case(test::random& numbers, const test::twin& encoding) {
    test::rotation_case c = test::random_case(numbers, encoding);
    c.host_validates = false;
    return c;
}

}  // namespace

TEST_CASE("invalid cu_seqlens are read within their bounds", "[unchecked]") {
    SEEDED(numbers);
    for (const std::vector<std::int64_t>& starts :
         {std::vector<std::int64_t>{5, 3, -100}, {min_int64, 1}, {0, 2, 1, 900}}) {
        test::rotation_case c = unchecked_case(numbers, test::plain_twin({.head_dim = 64}));
        c.q.batch = 1, c.q.tokens = 9;
        c.target.positions.given = rw::cu_seqlens(std::span<const std::int64_t>(starts));
        const test::rotated result = rotate(c, numbers);
        CHECK(result.problem == "");
        CHECK((result.q.result().guards_intact() && result.k.result().guards_intact()));
    }
}

TEST_CASE("an index outside a table takes the nearest row", "[unchecked][table]") {
    SEEDED(numbers);
    for (std::int64_t i = 0; i < test::cases(60); ++i) {
        test::rotation_case c = unchecked_case(
            numbers, {rw::make_encoding({.head_dim = 48, .rotary_dim = 40, .rotary_offset = 8}, "linear:3"), {}});
        const auto type = numbers.coin() ? rw::element_type::f32 : rw::element_type::bf16;
        const test::random_table t(numbers, type, c.layout, 30, 20, numbers.coin());
        c.table = t.table(rw::cos_sin_table::rows_are::by_index);
        c.target.positions = test::random_ids<std::int64_t>(numbers, c.q, -9, 40, c.q.batch);
        if (i % 4 == 0) {
            std::vector<std::int64_t> ids(static_cast<std::size_t>(c.q.batch * c.q.tokens));
            for (auto& id : ids) id = numbers.one_of({min_int64, max_int64, std::int64_t{-1}, std::int64_t{30}});
            c.target.positions = test::from_ids(c.q, ids, c.q.batch);
        }
        c.map = [&](std::int64_t pair, std::int64_t token) {
            const std::int64_t id = c.target.positions.exact[static_cast<std::size_t>(token)].whole;
            const auto at = static_cast<std::size_t>(std::clamp<std::int64_t>(id, 0, 29) * 20 + pair);
            return oracle::unit{t.cos[at], t.sin[at]};
        };
        CHECK_THAT(rotate(c, numbers), matches(c));
    }
}

TEST_CASE("positions drawn on the host are passed as fixed ids", "[unchecked]") {
    SEEDED(numbers);
    const rw::Encoding drawing = rw::make_encoding({.head_dim = 64}, "randomized:512,seed=3");
    std::vector<rw::fixed_position> drawn(512);
    drawing.draw_positions(0, drawn);
    test::rotation_case c = unchecked_case(numbers, {drawing, test::plain_twin({.head_dim = 64}).exact});
    drawn.resize(static_cast<std::size_t>(c.q.tokens));
    c.target.positions = test::from_ids(c.q, drawn, 1);
    CHECK_THAT(rotate(c, numbers), matches(c));
}

}  // namespace unchecked_cases
