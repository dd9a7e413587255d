#include <dispatch/dispatch.hpp>

#include <limits>
#include <vector>

#include "support/catch.hpp"
#include "support/encodings.hpp"
#include "support/errors.hpp"
#include "support/tensors.hpp"

namespace rw = ropewalk;
namespace dispatch = ropewalk::dispatch;

namespace bad_positions_tests {
namespace {

constexpr auto layout = rw::layout_kind::half_split;
constexpr rw::Geometry head{.head_dim = 16};

/// Expects an error with all the parts, and not a bit written.
void check_refused(const rw::Encoding& e, const rw::positions& where, std::initializer_list<const char*> parts,
                   const rw::cpu::options& options = {}, rw::element_type type = rw::element_type::f32,
                   const test::extents& size = {1, 6, 2, 16}) {
    SEEDED(numbers);
    test::array x(type, size, numbers);
    const test::array before = x;
    const std::string message = test::message_of(
        [&] { dispatch::rotate(layout, x.tensor(), test::none(), x.tensor(), test::none(), e, where, options); });
    INFO("message: '" << message << "'");
    CHECK(test::holds(message, parts));
    CHECK(x == before);
}

bool accepted(const rw::Encoding& e, const rw::positions& where, rw::element_type type = rw::element_type::f32) {
    SEEDED(numbers);
    test::array x(type, {1, 6, 2, 16}, numbers);
    return test::message_of(
               [&] { dispatch::rotate(layout, x.tensor(), test::none(), x.tensor(), test::none(), e, where); })
        .empty();
}

rw::positions ragged(const std::vector<std::int64_t>& starts, std::int64_t first = 0) {
    return rw::cu_seqlens(starts, first);
}

}  // namespace

TEST_CASE("ids that do not fit the tokens or the batch are refused", "[bad_positions]") {
    const rw::Encoding e = rw::make_encoding(head);
    const std::vector<std::int32_t> narrow(5);
    const std::vector<std::int64_t> wide(18);
    check_refused(e, rw::ids(narrow), {"5 entries", "6 tokens"});
    check_refused(e, rw::ids(std::span<const std::int64_t>(wide), 3), {"3 rows", "batch of 1"});
    check_refused(e, rw::ids(std::span<const std::int64_t>(wide), 3), {"3 rows", "batch of 2"}, {},
                  rw::element_type::f32, {2, 6, 1, 16});
    CHECK(accepted(e, rw::ids(wide)));
    check_refused(e, rw::ids(wide), {"one row of 18 entries", "batch of 3 with 6 tokens", "ids(values, 3)"}, {},
                  rw::element_type::f32, {3, 6, 1, 16});
}

TEST_CASE("cu_seqlens must begin with 0, ascend and end with the tokens", "[bad_positions]") {
    const rw::Encoding e = rw::make_encoding(head);
    check_refused(e, ragged({1, 6}), {"begin with 0", "got 1"});
    check_refused(e, ragged({}), {"begin with 0", "nothing"});
    check_refused(e, ragged({0, 4, 3, 6}), {"ascend", "got 3 after 4", "entry 2"});
    check_refused(e, ragged({0, 4}), {"ends with 4", "6 tokens"});
    check_refused(e, ragged({0, 7}), {"ends with 7", "6 tokens"});
    check_refused(e, ragged({0, 9, 6}), {"ascend", "got 6 after 9"});
    check_refused(e, ragged({0, -1, 6}), {"ascend", "got -1 after 0"});
    check_refused(e, ragged({0, 6}), {"packed", "batch of 2"}, {}, rw::element_type::f32, {2, 6, 1, 16});
    const std::vector<std::int32_t> narrow{0, 5, 2, 6};
    check_refused(e, rw::cu_seqlens(narrow), {"ascend", "got 2 after 5"});
}

TEST_CASE("positions beyond 64 bits are refused", "[bad_positions]") {
    constexpr std::int64_t highest = std::numeric_limits<std::int64_t>::max();
    const rw::Encoding e = rw::make_encoding(head);
    check_refused(e, rw::offset{highest - 2}, {"9223372036854775805", "6 tokens"});
    CHECK(accepted(e, rw::offset{highest - 6}));
    CHECK(accepted(e, rw::offset{std::numeric_limits<std::int64_t>::min()}));
    check_refused(e, ragged({0, 6}, highest - 2), {"9223372036854775805"});
}

TEST_CASE("xpos refuses positions whose magnitude the element type cannot hold", "[bad_positions][xpos]") {
    const rw::Encoding e = rw::make_encoding(head, rw::XPos{});
    check_refused(e, rw::offset{4528}, {"xpos", "4533", "f16", "4532"}, {}, rw::element_type::f16);
    check_refused(e, rw::offset{-4533}, {"xpos", "-4533", "f16", "4532"}, {}, rw::element_type::f16);
    CHECK(accepted(e, rw::offset{4527}, rw::element_type::f16));
    CHECK(accepted(e, rw::offset{-4532}, rw::element_type::f16));
    check_refused(e, rw::offset{35690}, {"xpos", "35695", "f32", "35694"});
    check_refused(e, rw::offset{35690}, {"xpos", "35695", "bf16", "35694"}, {}, rw::element_type::bf16);
    CHECK(accepted(e, rw::offset{35689}));
    const std::vector<std::int32_t> ids{0, 1, 40000, 2, 3, 4};
    check_refused(e, rw::ids(ids), {"xpos", "40000"});
    const std::vector<std::int64_t> low{0, 1, -40000, 2, 3, 4};
    check_refused(e, rw::ids(low), {"xpos", "-40000"});
    const std::vector<rw::fixed_position> fixed{{}, {}, {std::int64_t{40000} << 32}, {}, {}, {}};
    check_refused(e, rw::ids(fixed), {"xpos", "40000"});
    check_refused(e, ragged({0, 6}, 40000), {"xpos", "40000"});
    // A stated length moves the centre: f16 then refuses the beginning too.
    check_refused(rw::make_encoding(head, rw::XPos{.length = 16384}), rw::offset{0},
                  {"xpos", "position 0", "8192", "4532"}, {}, rw::element_type::f16);
}

TEST_CASE("a decay so slow that its reach is all of 64 bits refuses nothing", "[bad_positions][xpos]") {
    const rw::Encoding e = rw::make_encoding(head, rw::XPos{.scale_base = 1e17, .length = std::int64_t{1} << 61});
    REQUIRE(e.has_magnitude());
    CHECK(accepted(e, rw::offset{0}));
    CHECK(accepted(e, rw::offset{std::int64_t{1} << 61}));
}

TEST_CASE("an index beyond the randomized length is refused", "[bad_positions]") {
    const rw::Encoding e = rw::make_encoding(head, "randomized:8");
    CHECK(accepted(e, rw::offset{2}));
    check_refused(e, rw::offset{3}, {"randomized:8", "8 positions", "index 8"});
    check_refused(e, rw::offset{-1}, {"randomized:8", "index -1"});
    const std::vector<std::int64_t> ids{0, 1, 2, 9, 3, 4};
    check_refused(e, rw::ids(ids), {"randomized:8", "index 9"});
    const std::vector<rw::fixed_position> fixed(6);
    check_refused(e, rw::ids(fixed), {"randomized:8", "indices"});
    check_refused(rw::make_encoding(head, "randomized"), rw::offset{1}, {"randomized", "length"});
    check_refused(rw::make_encoding(head, "randomized_sorted:5"), rw::offset{0}, {"randomized_sorted", "5", "6"});
}

TEST_CASE("a table that does not fit is refused", "[bad_positions][table]") {
    const rw::Encoding e = rw::make_encoding(head);
    std::vector<float> cos(64, 1), sin(64, 0);
    const auto with = [&](const auto& spoil) {
        rw::cpu::options o;
        o.table.cos = cos.data(), o.table.sin = sin.data(), o.table.rows = 8, o.table.columns = 8,
        o.table.stride_row = 8;
        spoil(o.table);
        return o;
    };
    using rows_are = rw::cos_sin_table::rows_are;
    using table = rw::cos_sin_table;
    const auto as_it_is = with([](table&) {});
    check_refused(e, rw::offset{3}, {"position 8", "8 rows"}, as_it_is);
    check_refused(e, rw::offset{-1}, {"position -1", "8 rows"}, as_it_is);
    const std::vector<std::int32_t> ids{0, 1, 2, 8, 3, 4};
    check_refused(e, rw::ids(ids), {"position 8", "8 rows"}, as_it_is);
    const std::vector<rw::fixed_position> fixed(6);
    check_refused(e, rw::ids(fixed), {"fractional positions"}, as_it_is);
    check_refused(e, rw::offset{0}, {"5 rows", "6 tokens"},
                  with([](table& t) { t.order = rows_are::by_token, t.rows = 5; }));
    check_refused(e, rw::offset{0}, {"2 batches"}, with([](table& t) { t.order = rows_are::by_token, t.batch = 2; }));
    check_refused(e, rw::offset{0}, {"one batch", "2"}, with([](table& t) { t.batch = 2; }));
    check_refused(e, rw::offset{0}, {"8 or 16 columns", "got 7"}, with([](table& t) { t.columns = 7; }));
    check_refused(e, rw::offset{0}, {"cosines"}, with([](table& t) { t.cos = nullptr; }));
    check_refused(e, rw::offset{0}, {"sines"}, with([](table& t) { t.sin = nullptr; }));
    check_refused(e, rw::offset{0}, {"f32 or bf16", "f16"}, with([](table& t) { t.type = rw::element_type::f16; }));
    check_refused(e, rw::offset{0}, {"aligned", "4 bytes"},
                  with([](table& t) { t.cos = static_cast<const char*>(t.cos) + 2; }));
    check_refused(rw::make_encoding(head, rw::XPos{}), rw::offset{0}, {"table", "xpos"}, as_it_is);
    check_refused({}, rw::offset{0}, {"0 pairs", "64", "make_encoding()"}, as_it_is);
}

TEST_CASE("a table whose rows would overlap is refused, one that repeats a row is not", "[bad_positions][table]") {
    const rw::Encoding e = rw::make_encoding(head);
    std::vector<float> cos(128, 1), sin(128, 0);
    const auto message = [&](std::int64_t batch, std::int64_t stride_row, std::int64_t stride_batch) {
        SEEDED(numbers);
        test::array x(rw::element_type::f32, {batch, 6, 1, 16}, numbers);
        rw::cpu::options o;
        o.table.cos = cos.data() + 64, o.table.sin = sin.data() + 64, o.table.rows = 6, o.table.columns = 8;
        o.table.order = rw::cos_sin_table::rows_are::by_token, o.table.batch = batch;
        o.table.stride_row = stride_row, o.table.stride_batch = stride_batch;
        return test::message_of(
            [&] { dispatch::rotate(layout, x.tensor(), test::none(), x.tensor(), test::none(), e, rw::offset{0}, o); });
    };
    constexpr std::int64_t not_given = rw::cos_sin_table{}.stride_row;
    STATIC_REQUIRE(not_given != 0);
    STATIC_REQUIRE(rw::cos_sin_table{}.stride_batch == not_given);
    CHECK(test::holds(message(1, not_given, 0), {"6 rows", "8 columns", "lacks its stride_row"}));
    CHECK(test::holds(message(1, 7, 0), {"8 columns", "stride_row is 7"}));
    CHECK(test::holds(message(1, -7, 0), {"8 columns", "stride_row is -7"}));
    CHECK(message(1, 8, not_given) == "");
    CHECK(message(1, -8, not_given) == "");
    CHECK(message(1, 0, not_given) == "");  // one row expanded
    CHECK(test::holds(message(2, 8, not_given), {"2 batches", "lacks its stride_batch"}));
    CHECK(test::holds(message(2, 8, 1), {"8 columns", "stride_batch is 1"}));
    CHECK(message(2, 8, 0) == "");  // one batch expanded
}

TEST_CASE("cos_sin refuses what does not fit its buffers", "[bad_positions][table]") {
    const rw::Encoding e = rw::make_encoding(head);
    std::vector<float> cos(48, 7), sin(48, 7);
    const auto make = [&](std::int64_t tokens, std::int64_t columns) {
        dispatch::cos_sin(layout, e, rw::offset{0}, tokens, columns, cos, sin);
    };
    CHECK_REFUSED(make(7, 8), "7 tokens", "8 columns", "56 floats", "48");
    CHECK_REFUSED(make(6, 9), "8 or 16 columns", "got 9");
    CHECK_REFUSED(make(-1, 8), "tokens", "-1");
    CHECK_REFUSED(make(std::int64_t{1} << 60, 16), "1152921504606846976 tokens", "16 columns", "48");
    CHECK_REFUSED(make(std::int64_t{1} << 62, 8), "4611686018427387904 tokens", "8 columns", "48");
    const std::vector<std::int64_t> ids(5);
    CHECK_REFUSED(dispatch::cos_sin(layout, e, rw::ids(ids), 6, 8, cos, sin), "5 entries", "6 tokens");
    CHECK(cos == std::vector<float>(48, 7));
    CHECK(sin == std::vector<float>(48, 7));
    CHECK_NOTHROW(make(6, 8));
    CHECK_REFUSED(dispatch::cos_sin(layout, {}, rw::offset{0}, 6, 8, cos, sin), "0 pairs", "64", "make_encoding()");
}

TEST_CASE("cos_sin refuses the other layout than the encoding's, save where both are one", "[bad_positions][table]") {
    rw::Geometry named = head;
    named.layout = rw::layout_kind::interleaved;
    const rw::Encoding e = rw::make_encoding(named);
    std::vector<float> cos(96, 7), sin(96, 7);
    const auto make = [&](rw::layout_kind kind, std::int64_t columns) {
        dispatch::cos_sin(kind, e, rw::offset{0}, 6, columns, cos, sin);
    };
    CHECK_REFUSED(make(rw::layout_kind::half_split, 16), "interleaved", "half_split");
    CHECK(cos == std::vector<float>(96, 7));
    CHECK_NOTHROW(make(rw::layout_kind::half_split, 8));
    CHECK_NOTHROW(make(rw::layout_kind::interleaved, 16));
}

}  // namespace bad_positions_tests
