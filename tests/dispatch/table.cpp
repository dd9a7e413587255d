// Tables of the library's own cosines and sines, and special values in the data or in a table.
#include <bit>
#include <cmath>
#include <numeric>

#include "calls.hpp"
#include "support/encodings.hpp"

namespace rw = ropewalk;

TEST_CASE("a table of cos_sin() gives the bits of the phases", "[table]") {
    SEEDED(numbers);
    const rw::Encoding e = rw::make_encoding({.head_dim = 80}, "linear:4|power:0.5");
    for (const rw::layout_kind layout : test::all_layouts) {
        for (const std::int64_t columns : {40, 80}) {
            std::vector<float> cos(50 * static_cast<std::size_t>(columns)), sin(cos.size());
            rw::dispatch::cos_sin(layout, e, rw::offset{0}, 50, columns, cos, sin);
            rw::cpu::options options;
            options.table = {
                .cos = cos.data(), .sin = sin.data(), .rows = 50, .columns = columns, .stride_row = columns};
            for (const rw::element_type type : test::all_types) {
                test::array x(type, {1, 20, 3, 80}, numbers), y = x;
                test::rotate_q(layout, x, e, rw::offset{30}, options);
                test::rotate_q(layout, y, e, rw::offset{30});
                INFO(rw::to_string(type) << ' ' << rw::to_string(layout) << ' ' << columns << " columns");
                CHECK(x == y);
            }
        }
    }
}

TEST_CASE("cos_sin of consecutive positions has the bits of each position by itself", "[table]") {
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
        rw::dispatch::cos_sin(layout, e, rw::offset{start}, tokens, columns, cos, sin);
        rw::dispatch::cos_sin(layout, e, rw::ids(ids), tokens, columns, c, s);
        INFO(pairs << " pairs, " << columns << " columns, " << tokens << " tokens from " << start);
        CHECK(cos == c);
        CHECK(sin == s);
        CHECK((cos.back() == untouched && sin.back() == untouched));
    }
}

TEST_CASE("cos_sin writes one column per pair, or each value in both columns of Transformers", "[table]") {
    // The attention factor is not in the table.
    const rw::Encoding e = rw::make_encoding({.head_dim = 30}, rw::Linear{.factor = 2} | test::Constant{3});
    const auto exact = oracle::encode(oracle::linear(oracle::plain(10000, 30), 2));
    for (const rw::layout_kind layout : test::all_layouts) {
        const oracle::shape s{.head_dim = 30, .width = 30, .interleaved = layout == rw::layout_kind::interleaved};
        std::vector<float> cos(61, 7), sin(cos), c(121, 7), wide_sin(c);
        rw::dispatch::cos_sin(layout, e, rw::offset{-2}, 4, 15, cos, sin);
        rw::dispatch::cos_sin(layout, e, rw::offset{-2}, 4, 30, c, wide_sin);
        CHECK(test::table_error(exact, test::consecutive({1, 4, 1, 30}, -2), cos, sin) <= 1.2e-7);
        CHECK((cos.back() == 7.0F && sin.back() == 7.0F && c.back() == 7.0F && wide_sin.back() == 7.0F));
        for (std::size_t i = 0; i < 60; ++i) {
            const auto pair = static_cast<std::int64_t>(i % 15);
            for (const std::int64_t column : {s.first(pair), s.second(pair)}) {
                const std::size_t at = i / 15 * 30 + static_cast<std::size_t>(column);
                CHECK(c[at] == cos[i]);
                CHECK(wide_sin[at] == sin[i]);
            }
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
                options.table = {.cos = cos.data(), .sin = sin.data(), .rows = 1, .columns = 70, .stride_row = 70};
                test::rotate_q(layout, x, rw::make_encoding({.head_dim = 140}), rw::offset{0}, options);
                int numbers = 0;
                for (const double value : x.values()) numbers += !std::isnan(value);
                INFO(std::hex << bits << ' ' << rw::to_string(type) << ' ' << rw::to_string(layout));
                CHECK(numbers == 0);
            }
        }
    }
}

TEST_CASE("a NaN or an infinity in the data affects its own pair and no other", "[nan]") {
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
                test::rotate_q(layout, x, e, rw::offset{1});
                test::rotate_q(layout, clean, e, rw::offset{1});
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
