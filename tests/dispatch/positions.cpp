// Positions that an encoding draws, and those of M-RoPE text.
#include <numeric>

#include "calls.hpp"
#include "cases/rotation_case.hpp"

namespace rw = ropewalk;

namespace drawn_positions_tests {
namespace {

/// Places [batch, tokens] from index `first` of the positions that each batch row draws.
template <class Source>
test::token_positions drawn(const Source& source, const test::extents& size, std::int64_t stated, std::int64_t first) {
    test::token_positions result{rw::offset{first}, {}, nullptr};
    std::vector<rw::fixed_position> row(static_cast<std::size_t>(stated));
    for (std::int64_t b = 0; b < size.batch; ++b) {
        source.draw_positions(static_cast<std::uint64_t>(b), row);
        for (std::int64_t t = 0; t < size.tokens; ++t)
            result.exact.push_back(test::place_of(row[static_cast<std::size_t>(first + t)]));
    }
    return result;
}

test::rotation_case drawing_case(const rw::Encoding& e) {
    test::rotation_case c = test::case_at({e, oracle::encode(oracle::plain(10000, 40))}, 0);
    c.q = {3, 11, 2, 40};
    return c;
}

}  // namespace

TEST_CASE("every batch row rotates by the positions drawn for it", "[positions]") {
    SEEDED(numbers);
    for (const char* const expression :
         {"randomized:64,seed=3", "randomized:64,epsilon=0.5,draw=2", "randomized_sorted:500,seed=9"}) {
        test::rotation_case c = drawing_case(rw::make_encoding({.head_dim = 40, .sequence_length = 64}, expression));
        // Decoding continues where the same draw ended.
        for (const std::int64_t first : {0, 20}) {
            c.target.positions = drawn(c.target.encoding.ours, c.q, 64, first);
            CHECK_THAT(rotate(c, numbers), matches(c));
        }
        std::vector<std::int32_t> ids(static_cast<std::size_t>(c.q.tokens));
        std::iota(ids.begin(), ids.end(), 20);
        c.target.positions.given = rw::ids(ids);
        CHECK_THAT(rotate(c, numbers), matches(c));
    }
}

TEST_CASE("randomized without a length draws as many positions as the call has tokens", "[positions]") {
    SEEDED(numbers);
    test::rotation_case c = drawing_case(rw::make_encoding({.head_dim = 40}, "randomized:seed=5"));
    c.target.positions = drawn(rw::Randomized{.seed = 5}, c.q, c.q.tokens, 0);
    CHECK_THAT(rotate(c, numbers), matches(c));
}

}  // namespace drawn_positions_tests

namespace mrope_tests {
namespace {

constexpr test::extents size{2, 9, 3, 72};
constexpr rw::Geometry head{.head_dim = 72, .rotary_dim = 64, .rotary_offset = 4, .base = 1e6};
constexpr auto layout = rw::layout_kind::half_split;

}  // namespace

TEST_CASE("text, one position per token, is plain RoPE bit for bit in every form of positions", "[mrope]") {
    SEEDED(numbers);
    const rw::Encoding plain = rw::make_encoding(head);
    std::vector<std::int64_t> ids(static_cast<std::size_t>(size.tokens)), on_axes;
    std::iota(ids.begin(), ids.end(), 5000);
    for (int axis = 0; axis < 3; ++axis) on_axes.insert(on_axes.end(), ids.begin(), ids.end());
    for (const test::encoded_at& sections : test::all_sections(head)) {
        for (const rw::element_type type : test::all_types) {
            const test::array start(type, size, numbers);
            const auto result = [&](const rw::Encoding& e, const rw::positions& positions) {
                test::array x = start;
                test::rotate_q(layout, x, e, positions);
                return x;
            };
            const rw::Encoding& e = sections.encoding.ours;
            const test::array expected = result(plain, rw::offset{5000});
            INFO(e.expression << ' ' << rw::to_string(type));
            CHECK_FALSE(expected == start);
            CHECK(result(e, rw::axis_ids(std::span<const std::int64_t>(on_axes))) == expected);
            CHECK(result(e, rw::ids(ids)) == expected);
            CHECK(result(e, rw::offset{5000}) == expected);
        }
    }
}

TEST_CASE("cos_sin takes several positions per token, and a table by token replaces them", "[mrope]") {
    SEEDED(numbers);
    for (test::encoded_at& sections : test::all_sections(head)) {
        const test::extents row{1, size.tokens, 1, 72};
        sections.positions = test::random_axis_ids<std::int64_t>(numbers, row, -2147483647, 2147483647, 1);
        const rw::positions& given = sections.positions.given;
        const rw::Encoding& e = sections.encoding.ours;
        std::vector<float> cos(static_cast<std::size_t>(size.tokens * 32)), sin(cos);
        rw::dispatch::cos_sin(layout, e, given, size.tokens, 32, cos, sin);
        double worst = 0;
        for (std::size_t at = 0; at < cos.size(); ++at) {
            const auto token = static_cast<std::int64_t>(at / 32), pair = static_cast<std::int64_t>(at % 32);
            const oracle::unit u =
                oracle::cos_sin(sections.encoding.exact.turns[at % 32], sections.place(pair, token, row));
            worst = std::max({worst, std::fabs(static_cast<double>(cos[at]) - u.cos),
                              std::fabs(static_cast<double>(sin[at]) - u.sin)});
        }
        INFO(e.expression);
        CHECK(worst <= 1.2e-7);

        rw::cpu::options options;
        options.table = {.cos = cos.data(), .sin = sin.data(), .rows = size.tokens, .columns = 32, .stride_row = 32};
        options.table.order = rw::cos_sin_table::rows_are::by_token;
        test::array by_table(rw::element_type::f32, size, numbers), by_angles = by_table;
        test::rotate_q(layout, by_table, e, given, options);
        test::rotate_q(layout, by_angles, e, given);
        CHECK(by_table == by_angles);
    }
}

}  // namespace mrope_tests
