#include <dispatch/dispatch.hpp>

#include <cmath>
#include <vector>

#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/encodings.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;
namespace dispatch = ropewalk::dispatch;

namespace rerotate_tests {
namespace {

constexpr test::extents size{2, 9, 3, 72};
constexpr rw::Geometry head{.head_dim = 72, .rotary_dim = 68, .rotary_offset = 2};

test::twin linear_twin(double factor) {
    return {rw::make_encoding(head, rw::Linear{.factor = factor}),
            oracle::encode(oracle::linear(oracle::plain(10000, 68), factor))};
}

struct move {
    const test::twin &from, &to;
    std::int64_t from_first, to_first;
};

/// Undoes the old encoding and applies the new one to the very values that are stored.
std::vector<double> exactly(const oracle::shape& s, std::vector<double> x, const move& m) {
    oracle::apply(s, x, [&](std::int64_t pair, std::int64_t token) {
        const std::int64_t t = token % s.tokens;
        const auto a =
            oracle::pair_map(m.from.exact, pair, {m.from_first + t, 0}, oracle::role::key, oracle::direction::inverse);
        const auto b =
            oracle::pair_map(m.to.exact, pair, {m.to_first + t, 0}, oracle::role::key, oracle::direction::forward);
        return oracle::unit{a.cos * b.cos - a.sin * b.sin, a.cos * b.sin + a.sin * b.cos};
    });
    return x;
}

void encode(rw::layout_kind layout, test::array& k, const rw::Encoding& e, std::int64_t first) {
    dispatch::rotate(layout, test::none(), k.tensor(), test::none(), k.tensor(), e, rw::offset{first});
}

void check_move(test::random& numbers, const move& m) {
    for (const rw::element_type type : test::all_types) {
        for (const rw::layout_kind layout : test::all_layouts) {
            test::array cached(type, size, numbers), afresh = cached, out(type, size);
            encode(layout, cached, m.from.ours, m.from_first);
            encode(layout, afresh, m.to.ours, m.to_first);
            const auto shape = test::shape_of(size, head, layout);
            const auto exact = exactly(shape, cached.values(), m);
            dispatch::rerotate(layout, cached.tensor(), out.tensor(), m.from.ours, rw::offset{m.from_first}, m.to.ours,
                               rw::offset{m.to_first});
            dispatch::rerotate(layout, cached.tensor(), cached.tensor(), m.from.ours, rw::offset{m.from_first},
                               m.to.ours, rw::offset{m.to_first});
            INFO(m.from.ours.expression << " at " << m.from_first << " → " << m.to.ours.expression << " at "
                                        << m.to_first << ", " << rw::to_string(type) << ' ' << rw::to_string(layout));
            CHECK(test::compare(cached, exact, shape).first_problem == "");
            CHECK(out == cached);
            // Against a fresh encoding: half a rounding of the cached key, half of each result.
            const double rounding = std::ldexp(1.0, -cached.format().digits);
            CHECK(test::compare(cached, afresh.values(), shape, 2 * rounding + 4e-7).first_problem == "");
        }
    }
}

}  // namespace

TEST_CASE("rerotated keys are what the new encoding would have made of them", "[rerotate]") {
    SEEDED(numbers);
    const test::twin four = linear_twin(4), eight = linear_twin(8), plain = test::plain_twin(head);
    check_move(numbers, {four, eight, 1000, 1000});
    check_move(numbers, {eight, plain, -50, -50});
    check_move(numbers, {plain, plain, 0, 123456});
    check_move(numbers, {four, eight, 2147483000, -2147483000});
    check_move(numbers, {plain, plain, 77, 77});
}

TEST_CASE("rerotate turns xpos into another xpos, into none and out of none", "[rerotate][xpos]") {
    SEEDED(numbers);
    const test::twin wide = test::xpos_twin(head, {.length = 4096}),
                     narrow = test::xpos_twin(head, {.scale_base = 300, .gamma = 0.6, .length = 1000}),
                     plain = test::plain_twin(head), scaled = linear_twin(2);
    check_move(numbers, {wide, wide, 100, 2000});
    check_move(numbers, {wide, narrow, 1500, 1500});
    check_move(numbers, {plain, wide, 1000, 1000});
    check_move(numbers, {narrow, scaled, 1000, 900});
}

TEST_CASE("rerotate exchanges attention factors", "[rerotate]") {
    SEEDED(numbers);
    test::twin from = linear_twin(4), to = linear_twin(16);
    from.ours.attention_factor = from.exact.factor = 1.25;
    to.ours.attention_factor = to.exact.factor = 1.5;
    check_move(numbers, {from, to, 10, 20});
}

TEST_CASE("rerotate refuses a change of attention factors that no float holds", "[rerotate]") {
    SEEDED(numbers);
    const auto with = [](double factor) {
        return rw::make_encoding({.head_dim = 64}, rw::Yarn{.attention_factor_given = factor});
    };
    const rw::Encoding small = with(0x1p-70), large = with(0x1p70);
    test::array k(rw::element_type::f32, {1, 1, 1, 64}, numbers);
    const test::array before = k;
    const auto move = [&](const rw::Encoding& from, const rw::Encoding& to) {
        dispatch::rerotate(rw::layout_kind::interleaved, k.tensor(), k.tensor(), from, rw::offset{0}, to,
                           rw::offset{0});
    };
    CHECK_REFUSED(move(small, large), "yarn", "attention factor", "1.3937965749081639e+42");
    CHECK_REFUSED(move(large, small), "yarn", "attention factor", "7.1746481373430634e-43");
    CHECK(k == before);
    CHECK_NOTHROW(move(large, large));
}

TEST_CASE("rerotate takes ids on either side", "[rerotate]") {
    SEEDED(numbers);
    const test::twin from = linear_twin(4), to = linear_twin(8);
    std::vector<std::int32_t> old_ids;
    std::vector<std::int64_t> new_ids;
    for (std::int64_t i = 0; i < size.batch * size.tokens; ++i) {
        old_ids.push_back(static_cast<std::int32_t>(numbers.integer(-100000, 100000)));
        new_ids.push_back(numbers.integer(-100000, 100000));
    }
    test::array k(rw::element_type::f32, size, numbers);
    const auto shape = test::shape_of(size, head, rw::layout_kind::half_split);
    auto exact = k.values();
    oracle::apply(shape, exact, [&](std::int64_t pair, std::int64_t token) {
        const auto at = static_cast<std::size_t>(token);
        const auto a =
            oracle::pair_map(from.exact, pair, {old_ids[at], 0}, oracle::role::key, oracle::direction::inverse);
        const auto b =
            oracle::pair_map(to.exact, pair, {new_ids[at], 0}, oracle::role::key, oracle::direction::forward);
        return oracle::unit{a.cos * b.cos - a.sin * b.sin, a.cos * b.sin + a.sin * b.cos};
    });
    dispatch::rerotate(rw::layout_kind::half_split, k.tensor(), k.tensor(), from.ours,
                       rw::ids(std::span<const std::int32_t>(old_ids), size.batch), to.ours,
                       rw::ids(std::span<const std::int64_t>(new_ids), size.batch));
    CHECK(test::compare(k, exact, shape).first_problem == "");
}

TEST_CASE("an xpos shift too long for the element type is refused, not wrapped around", "[rerotate][xpos]") {
    SEEDED(numbers);
    // Each position is in reach, but between them lie more than 2^126 of magnitude.
    const rw::Encoding e = rw::make_encoding({.head_dim = 64}, rw::XPos{});
    test::array k(rw::element_type::f32, {1, 1, 1, 64}, numbers);
    const test::array before = k;
    CHECK_REFUSED(dispatch::rerotate(rw::layout_kind::interleaved, k.tensor(), k.tensor(), e, rw::offset{-30000}, e,
                                     rw::offset{30000}),
                  "xpos", "30000");
    CHECK(k == before);
}

}  // namespace rerotate_tests
