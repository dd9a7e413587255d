#include <dispatch/dispatch.hpp>

#include <bit>
#include <cmath>
#include <numeric>
#include <vector>

#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/encodings.hpp"
#include "support/tables.hpp"

namespace rw = ropewalk;
namespace dispatch = ropewalk::dispatch;
using rows_are = rw::cos_sin_table::rows_are;
using foreign = test::foreign_table;

namespace table_tests {
namespace {

constexpr test::extents size{2, 7, 3, 44};
constexpr rw::Geometry head{.head_dim = 44, .rotary_dim = 40, .rotary_offset = 3};

/// Rotates by the table; `lines` says which row each token of the batch must use.
void check_table(test::random& numbers, const foreign& f, const rw::cos_sin_table& table, const rw::positions& where,
                 const std::vector<std::int64_t>& lines, rw::cpu::direction direction = rw::cpu::direction::forward) {
    const rw::Encoding e = rw::make_encoding(head, "linear:3");
    for (const rw::element_type type : test::all_types) {
        test::array x(type, size, numbers);
        const auto shape = test::shape_of(size, head, f.layout);
        auto exact = x.values();
        oracle::apply(shape, exact, [&](std::int64_t pair, std::int64_t token) {
            const auto at = static_cast<std::size_t>(lines[static_cast<std::size_t>(token)] * f.pairs + pair);
            return oracle::unit{f.cos[at], direction == rw::cpu::direction::forward ? f.sin[at] : -f.sin[at]};
        });
        rw::cpu::options options;
        options.table = table, options.direction = direction;
        dispatch::rotate(f.layout, x.tensor(), test::none(), x.tensor(), test::none(), e, where, options);
        INFO("table " << rw::to_string(f.type) << (f.doubled ? " doubled " : " ") << rw::to_string(f.layout)
                      << ", data " << rw::to_string(type));
        CHECK(test::compare(x, exact, shape).first_problem == "");
    }
}

std::vector<std::int64_t> lines_from(std::int64_t first) {
    std::vector<std::int64_t> lines;
    for (std::int64_t b = 0; b < size.batch; ++b) {
        for (std::int64_t t = 0; t < size.tokens; ++t) lines.push_back(first + t);
    }
    return lines;
}

}  // namespace

TEST_CASE("a foreign table is used to the bit, f32 and bf16, one column a pair or one an element", "[table]") {
    SEEDED(numbers);
    for (const rw::element_type type : {rw::element_type::f32, rw::element_type::bf16}) {
        for (const rw::layout_kind layout : test::all_layouts) {
            for (const bool doubled : {false, true}) {
                const foreign f(numbers, type, layout, 30, 20, doubled);
                check_table(numbers, f, f.table(rows_are::by_index), rw::offset{11}, lines_from(11));
                check_table(numbers, f, f.table(rows_are::by_token), rw::offset{11}, lines_from(0));
                const std::vector<std::int32_t> ids{29, 0, 5, 5, 4, 17, 3};
                check_table(numbers, f, f.table(rows_are::by_index), rw::ids(ids),
                            {29, 0, 5, 5, 4, 17, 3, 29, 0, 5, 5, 4, 17, 3});
                check_table(numbers, f, f.table(rows_are::by_index), rw::offset{0}, lines_from(0),
                            rw::cpu::direction::inverse);
                check_table(numbers, f, f.table(rows_are::by_index), rw::offset{0}, lines_from(0),
                            rw::cpu::direction::adjoint);
            }
        }
    }
}

TEST_CASE("a table by token may have rows of its own for every batch row", "[table]") {
    SEEDED(numbers);
    const foreign f(numbers, rw::element_type::f32, rw::layout_kind::half_split, 14, 20, true);
    rw::cos_sin_table table = f.table(rows_are::by_token);
    table.rows = 7, table.batch = 2, table.stride_batch = 7 * f.stride;
    check_table(numbers, f, table, rw::offset{-9}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13});
}

TEST_CASE("our own table gives what the phases give, to the bit", "[table]") {
    SEEDED(numbers);
    const rw::Geometry g{.head_dim = 80};
    const rw::Encoding e = rw::make_encoding(g, "linear:4|power:0.5");
    for (const rw::layout_kind layout : test::all_layouts) {
        for (const std::int64_t columns : {40, 80}) {
            std::vector<float> cos(50 * static_cast<std::size_t>(columns)), sin(cos.size());
            dispatch::cos_sin(layout, e, rw::offset{0}, 50, columns, cos, sin);
            rw::cpu::options options;
            options.table.cos = cos.data(), options.table.sin = sin.data(), options.table.rows = 50;
            options.table.columns = options.table.stride_row = columns;
            for (const rw::element_type type : test::all_types) {
                test::array x(type, {1, 20, 3, 80}, numbers), y = x;
                dispatch::rotate(layout, x.tensor(), test::none(), x.tensor(), test::none(), e, rw::offset{30},
                                 options);
                dispatch::rotate(layout, y.tensor(), test::none(), y.tensor(), test::none(), e, rw::offset{30});
                INFO(rw::to_string(type) << ' ' << rw::to_string(layout) << ' ' << columns << " columns");
                CHECK(x == y);
            }
        }
    }
}

TEST_CASE("rows of neighbouring positions are what each position has by itself, to the bit", "[table]") {
    SEEDED(numbers);
    for (int round = 0; round < 60; ++round) {
        const std::int64_t pairs = numbers.integer(1, 150), tokens = numbers.integer(1, 150);
        const std::int64_t columns = pairs * numbers.integer(1, 2), start = numbers.integer(-(1LL << 31), 1LL << 31);
        const rw::layout_kind layout = test::all_layouts[static_cast<std::size_t>(numbers.integer(0, 1))];
        const rw::Encoding e = rw::make_encoding({.head_dim = 2 * pairs}, "linear:3");
        std::vector<std::int64_t> ids(static_cast<std::size_t>(tokens));
        std::iota(ids.begin(), ids.end(), start);
        constexpr float untouched = 7;
        std::vector<float> cos(static_cast<std::size_t>(tokens * columns + 1), untouched), sin(cos), c(cos), s(cos);
        dispatch::cos_sin(layout, e, rw::offset{start}, tokens, columns, cos, sin);
        dispatch::cos_sin(layout, e, rw::ids(ids), tokens, columns, c, s);
        INFO(pairs << " pairs, " << columns << " columns, " << tokens << " tokens from " << start);
        CHECK(cos == c);
        CHECK(sin == s);
        CHECK((cos.back() == untouched && sin.back() == untouched));
    }
}

TEST_CASE("cos_sin writes one column a pair, or each value where Transformers expects it", "[table]") {
    const rw::Encoding e = rw::make_encoding({.head_dim = 30}, rw::Linear{.factor = 2} | test::Constant{3});
    const auto exact = oracle::encode(oracle::linear(oracle::plain(10000, 30), 2));
    for (const rw::layout_kind layout : test::all_layouts) {
        for (const std::int64_t columns : {15, 30}) {
            const oracle::shape s{1, 1, 1, 30, 0, 30, layout == rw::layout_kind::interleaved};
            std::vector<float> cos(static_cast<std::size_t>(4 * columns + 1), 7), sin(cos);
            dispatch::cos_sin(layout, e, rw::offset{-2}, 4, columns, cos, sin);
            double worst = 0;
            for (std::int64_t token = 0; token < 4; ++token) {
                for (std::int64_t j = 0; j < 15; ++j) {
                    // The angle alone: the attention factor is not in the table.
                    const oracle::unit u = oracle::cos_sin(exact.turns[static_cast<std::size_t>(j)], {token - 2, 0});
                    for (const std::int64_t c : {columns == 15 ? j : s.first(j), columns == 15 ? j : s.second(j)}) {
                        const auto at = static_cast<std::size_t>(token * columns + c);
                        worst = std::max({worst, std::fabs(static_cast<double>(cos[at]) - u.cos),
                                          std::fabs(static_cast<double>(sin[at]) - u.sin)});
                    }
                }
            }
            CHECK(worst <= 1.2e-7);
            CHECK(cos.back() == 7.0F);
            CHECK(sin.back() == 7.0F);
        }
    }
}

TEST_CASE("a NaN in the data or in a table stays a NaN in every element type", "[table][nan]") {
    // 0xffffffff and 0x7fffffff would round up to zero if they were taken for numbers.
    for (const std::uint32_t bits : {0x7fc00000U, 0xffffffffU, 0x7fffffffU, 0x7f800001U, 0xffc0ffffU}) {
        for (const rw::layout_kind layout : test::all_layouts) {
            for (const rw::element_type type : test::all_types) {
                test::array x(type, {1, 1, 2, 140});
                x.set(std::vector<double>(280, 1.0));
                std::vector<float> cos(70, std::bit_cast<float>(bits)), sin(70, 0.5F);
                rw::cpu::options options;
                options.table.cos = cos.data(), options.table.sin = sin.data(), options.table.rows = 1,
                options.table.columns = options.table.stride_row = 70;
                dispatch::rotate(layout, x.tensor(), test::none(), x.tensor(), test::none(),
                                 rw::make_encoding({.head_dim = 140}), rw::offset{0}, options);
                int numbers = 0;
                for (const double value : x.values()) numbers += !std::isnan(value);
                INFO(std::hex << bits << ' ' << rw::to_string(type) << ' ' << rw::to_string(layout));
                CHECK(numbers == 0);
            }
        }
    }
}

TEST_CASE("a NaN or an infinity in the data spoils its own pair and no other", "[nan]") {
    SEEDED(numbers);
    const rw::Encoding e = rw::make_encoding({.head_dim = 140});
    for (const rw::layout_kind layout : test::all_layouts) {
        for (const rw::element_type type : test::all_types) {
            for (const double bad : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
                test::array x(type, {1, 1, 1, 140}, numbers), clean = x;
                auto values = x.values();
                const std::int64_t pair = numbers.integer(0, 69);
                const auto shape = test::shape_of(x.size(), e.geometry, layout);
                values[static_cast<std::size_t>(shape.first(pair))] = bad;
                x.set(values);
                dispatch::rotate(layout, x.tensor(), test::none(), x.tensor(), test::none(), e, rw::offset{1});
                dispatch::rotate(layout, clean.tensor(), test::none(), clean.tensor(), test::none(), e, rw::offset{1});
                const auto got = x.values(), expected = clean.values();
                for (std::int64_t i = 0; i < 140; ++i) {
                    const bool own = i == shape.first(pair) || i == shape.second(pair);
                    const auto at = static_cast<std::size_t>(i);
                    CHECK((own ? !std::isfinite(got[at]) && std::isnan(got[at]) == std::isnan(bad)
                               : got[at] == expected[at]));
                }
            }
        }
    }
}

}  // namespace table_tests
