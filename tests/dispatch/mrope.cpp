// Several positions a token: t, h and w.
#include <dispatch/dispatch.hpp>

#include <limits>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/encodings.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;
namespace dispatch = ropewalk::dispatch;

namespace mrope_tests {
namespace {

constexpr test::extents size{2, 9, 3, 72};
constexpr rw::Geometry head{.head_dim = 72, .rotary_dim = 64, .rotary_offset = 4, .base = 1e6};
constexpr auto layout = rw::layout_kind::half_split;

/// An encoding by mrope, and which position each of its 32 pairs follows by the definition.
struct sections {
    rw::Encoding ours;
    oracle::encoding exact;
    std::vector<std::size_t> follows;
};

sections chunked(std::int64_t t, std::int64_t h, std::int64_t w) {
    sections result{
        rw::make_encoding(head, rw::MRope{.sections = {t, h, w}}), oracle::encode(oracle::plain(head.base, 64)), {}};
    for (std::int64_t i = 0; i < t + h + w; ++i) result.follows.push_back(i < t ? 0 : i < t + h ? 1 : 2);
    return result;
}
sections interleaved(std::int64_t t, std::int64_t h, std::int64_t w) {
    sections result{rw::make_encoding(head, rw::MRope{.sections = {t, h, w}, .interleaved = true}),
                    oracle::encode(oracle::plain(head.base, 64)), std::vector<std::size_t>(32, 0)};
    // As Qwen3-VL does it: every third pair from 1 on is taken from h, from 2 on from w.
    for (std::int64_t j = 1; j < 3 * h; j += 3) result.follows.at(static_cast<std::size_t>(j)) = 1;
    for (std::int64_t j = 2; j < 3 * w; j += 3) result.follows.at(static_cast<std::size_t>(j)) = 2;
    return result;
}

const sections& qwen2() {
    static const sections made = chunked(8, 12, 12);
    return made;
}
std::vector<sections> all_sections() {
    return {qwen2(),           chunked(0, 31, 1),       chunked(30, 0, 2),
            chunked(32, 0, 0), interleaved(12, 10, 10), interleaved(20, 5, 7)};
}

/// Positions [3, rows, tokens].
template <class I>
std::vector<I> random_ids(test::random& numbers, std::int64_t rows) {
    std::vector<I> ids;
    for (std::int64_t i = 0; i < 3 * rows * size.tokens; ++i)
        ids.push_back(static_cast<I>(numbers.integer(-2147483647, 2147483647)));
    return ids;
}

/// The position that a pair of a token, counted through the batch, turns by.
template <class I>
oracle::place place_of(const sections& s, const std::vector<I>& ids, std::int64_t rows, std::int64_t pair,
                       std::int64_t token) {
    const std::int64_t row = rows == 1 ? 0 : token / size.tokens, column = token % size.tokens;
    const auto axis = static_cast<std::int64_t>(s.follows[static_cast<std::size_t>(pair)]);
    return {static_cast<std::int64_t>(ids[static_cast<std::size_t>((axis * rows + row) * size.tokens + column)]), 0};
}

template <class I>
std::string problem_at(test::random& numbers, const sections& s, rw::element_type type, rw::layout_kind kind,
                       std::int64_t rows) {
    const auto ids = random_ids<I>(numbers, rows);
    test::array x(type, size, numbers, numbers.one_of({test::order::bshd, test::order::bhsd, test::order::padded}));
    const auto shape = test::shape_of(size, head, kind);
    auto exact = x.values();
    oracle::apply(shape, exact, [&](std::int64_t pair, std::int64_t token) {
        return oracle::pair_map(s.exact, pair, place_of(s, ids, rows, pair, token), oracle::role::query,
                                oracle::direction::forward);
    });
    const rw::positions where = rw::axis_ids(std::span<const I>(ids), rows);
    dispatch::rotate(kind, x.tensor(), test::none(), x.tensor(), test::none(), s.ours, where);
    if (!x.guards_intact()) return "bytes around the elements changed";
    return test::compare(x, exact, shape).first_problem;
}

/// Expects an error with all the parts, and not a bit written.
void check_refused(const rw::Encoding& e, const rw::positions& where, std::initializer_list<const char*> parts,
                   const rw::cpu::options& options = {}) {
    SEEDED(numbers);
    test::array x(rw::element_type::f32, size, numbers);
    const test::array before = x;
    const std::string message = test::message_of(
        [&] { dispatch::rotate(layout, x.tensor(), test::none(), x.tensor(), test::none(), e, where, options); });
    INFO("message: '" << message << "'");
    CHECK(test::holds(message, parts));
    CHECK(message.find('\n') == std::string::npos);
    CHECK(x == before);
}

}  // namespace

TEST_CASE("every pair turns by the position that its section follows", "[mrope]") {
    SEEDED(numbers);
    for (const sections& s : all_sections()) {
        REQUIRE(s.ours.has_axes());
        for (const rw::element_type type : test::all_types) {
            for (const rw::layout_kind kind : test::all_layouts) {
                INFO(s.ours.expression << ' ' << rw::to_string(type) << ' ' << rw::to_string(kind));
                CHECK(problem_at<std::int32_t>(numbers, s, type, kind, 1) == "");
                CHECK(problem_at<std::int64_t>(numbers, s, type, kind, 1) == "");
                CHECK(problem_at<std::int32_t>(numbers, s, type, kind, size.batch) == "");
                CHECK(problem_at<std::int64_t>(numbers, s, type, kind, size.batch) == "");
            }
        }
    }
}

TEST_CASE("text, one position a token, is plain RoPE bit for bit however it is said", "[mrope]") {
    SEEDED(numbers);
    const rw::Encoding plain = rw::make_encoding(head);
    std::vector<std::int64_t> ids;
    for (std::int64_t t = 0; t < size.tokens; ++t) ids.push_back(5000 + t);
    std::vector<std::int64_t> thrice;
    for (int axis = 0; axis < 3; ++axis) thrice.insert(thrice.end(), ids.begin(), ids.end());
    for (const sections& s : all_sections()) {
        for (const rw::element_type type : test::all_types) {
            const test::array start(type, size, numbers);
            const auto turned = [&](const rw::Encoding& e, const rw::positions& where) {
                test::array x = start;
                dispatch::rotate(layout, x.tensor(), test::none(), x.tensor(), test::none(), e, where);
                return x;
            };
            const test::array expected = turned(plain, rw::offset{5000});
            INFO(s.ours.expression << ' ' << rw::to_string(type));
            CHECK_FALSE(expected == start);
            CHECK(turned(s.ours, rw::axis_ids(std::span<const std::int64_t>(thrice))) == expected);
            CHECK(turned(s.ours, rw::ids(ids)) == expected);
            CHECK(turned(s.ours, rw::offset{5000}) == expected);
        }
    }
}

TEST_CASE("cos and sin of several positions", "[mrope]") {
    SEEDED(numbers);
    for (const sections& s : all_sections()) {
        const auto ids = random_ids<std::int64_t>(numbers, 1);
        const rw::positions where = rw::axis_ids(std::span<const std::int64_t>(ids));
        const auto floats = static_cast<std::size_t>(size.tokens * 32);
        std::vector<float> cos(floats), sin(floats);
        dispatch::cos_sin(layout, s.ours, where, size.tokens, 32, cos, sin);
        double worst = 0;
        for (std::size_t at = 0; at < floats; ++at) {
            const auto token = static_cast<std::int64_t>(at / 32), pair = static_cast<std::int64_t>(at % 32);
            const oracle::unit exact = oracle::cos_sin(s.exact.turns[at % 32], place_of(s, ids, 1, pair, token));
            worst = std::max({worst, std::fabs(static_cast<double>(cos[at]) - exact.cos),
                              std::fabs(static_cast<double>(sin[at]) - exact.sin)});
        }
        INFO(s.ours.expression);
        CHECK(worst <= 1.2e-7);
    }
}

TEST_CASE("rerotate moves keys from several positions to several others", "[mrope]") {
    SEEDED(numbers);
    const sections &from = qwen2(), to = interleaved(12, 10, 10);
    const auto old_ids = random_ids<std::int64_t>(numbers, size.batch);
    const auto new_ids = random_ids<std::int32_t>(numbers, size.batch);
    for (const rw::element_type type : test::all_types) {
        for (const rw::layout_kind kind : test::all_layouts) {
            test::array k(type, size, numbers);
            const auto shape = test::shape_of(size, head, kind);
            auto exact = k.values();
            oracle::apply(shape, exact, [&](std::int64_t pair, std::int64_t token) {
                const auto a = oracle::pair_map(from.exact, pair, place_of(from, old_ids, size.batch, pair, token),
                                                oracle::role::key, oracle::direction::inverse);
                const auto b = oracle::pair_map(to.exact, pair, place_of(to, new_ids, size.batch, pair, token),
                                                oracle::role::key, oracle::direction::forward);
                return oracle::unit{a.cos * b.cos - a.sin * b.sin, a.cos * b.sin + a.sin * b.cos};
            });
            dispatch::rerotate(kind, k.tensor(), k.tensor(), from.ours,
                               rw::axis_ids(std::span<const std::int64_t>(old_ids), size.batch), to.ours,
                               rw::axis_ids(std::span<const std::int32_t>(new_ids), size.batch));
            INFO(rw::to_string(type) << ' ' << rw::to_string(kind));
            CHECK(test::compare(k, exact, shape).first_problem == "");
        }
    }
}

TEST_CASE("rerotate moves keys between several positions and one", "[mrope]") {
    SEEDED(numbers);
    const sections& s = qwen2();
    const rw::Encoding plain = rw::make_encoding(head);
    const auto ids = random_ids<std::int64_t>(numbers, 1);
    const rw::positions where = rw::axis_ids(std::span<const std::int64_t>(ids));
    const test::array raw(rw::element_type::f32, size, numbers);
    const auto shape = test::shape_of(size, head, layout);
    test::array by_axes = raw, by_offset = raw;
    dispatch::rotate(layout, by_axes.tensor(), test::none(), by_axes.tensor(), test::none(), s.ours, where);
    dispatch::rotate(layout, by_offset.tensor(), test::none(), by_offset.tensor(), test::none(), plain, rw::offset{7});
    test::array there = by_offset, back = by_axes;
    dispatch::rerotate(layout, there.tensor(), there.tensor(), plain, rw::offset{7}, s.ours, where);
    dispatch::rerotate(layout, back.tensor(), back.tensor(), s.ours, where, plain, rw::offset{7});
    CHECK(test::compare(there, by_axes.values(), shape, 1e-6).first_problem == "");
    CHECK(test::compare(back, by_offset.values(), shape, 1e-6).first_problem == "");
}

TEST_CASE("several positions a token are refused where they mean nothing", "[mrope]") {
    SEEDED(numbers);
    const auto ids = random_ids<std::int64_t>(numbers, 1);
    const rw::positions where = rw::axis_ids(std::span<const std::int64_t>(ids));
    check_refused(rw::make_encoding(head), where, {"'default'", "one position", "got 3"});
    check_refused(rw::make_encoding(head, "linear:8"), where, {"'linear:8'", "one position"});
    check_refused(rw::make_encoding(head, "xpos"), where, {"'xpos'", "one position"});
    check_refused(rw::make_encoding(head, "randomized:64"), where, {"'randomized:64'", "one position"});
    check_refused(rw::make_encoding(head, "mrope"), where, {"'mrope'", "one position"});

    rw::positions wrong = where;
    wrong.axes = 2;
    check_refused(qwen2().ours, wrong, {"2 axes", "1 or 3"});
    wrong.axes = 0;
    check_refused(qwen2().ours, wrong, {"0 axes"});
    wrong = where;
    wrong.source = rw::positions::kind::fixed;
    check_refused(qwen2().ours, wrong, {"ids"});
    wrong = where;
    wrong.source = rw::positions::kind::cu_seqlens64;
    check_refused(qwen2().ours, wrong, {"ids"});
    check_refused(qwen2().ours, rw::axis_ids(std::span<const std::int64_t>(ids).first(24)), {"8 entries", "9 tokens"});
    const auto rows = random_ids<std::int64_t>(numbers, 3);
    check_refused(qwen2().ours, rw::axis_ids(std::span<const std::int64_t>(rows), 3), {"3 rows", "batch of 2"});
}

TEST_CASE("a table by index takes one position a token, a table by token any", "[mrope][table]") {
    SEEDED(numbers);
    const auto ids = random_ids<std::int64_t>(numbers, 1);
    const rw::positions where = rw::axis_ids(std::span<const std::int64_t>(ids));
    const auto floats = static_cast<std::size_t>(size.tokens * 32);
    std::vector<float> cos(floats), sin(floats);
    dispatch::cos_sin(layout, qwen2().ours, where, size.tokens, 32, cos, sin);
    rw::cpu::options options;
    options.table.cos = cos.data(), options.table.sin = sin.data();
    options.table.rows = size.tokens, options.table.columns = 32, options.table.stride_row = 32;
    check_refused(qwen2().ours, where, {"table by index", "got 3"}, options);

    options.table.order = rw::cos_sin_table::rows_are::by_token;
    test::array by_table(rw::element_type::f32, size, numbers), by_angles = by_table;
    dispatch::rotate(layout, by_table.tensor(), test::none(), by_table.tensor(), test::none(), qwen2().ours, where,
                     options);
    dispatch::rotate(layout, by_angles.tensor(), test::none(), by_angles.tensor(), test::none(), qwen2().ours, where);
    CHECK(by_table == by_angles);
}

}  // namespace mrope_tests
