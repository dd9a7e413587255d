// Positions of every kind.
#include <limits>
#include <numeric>
#include <utility>

#include "cases/rotation_case.hpp"

namespace rw = ropewalk;

namespace position_cases {
namespace {

constexpr std::int64_t min_id = std::numeric_limits<std::int32_t>::min(),
                       max_id = std::numeric_limits<std::int32_t>::max(), far = std::int64_t{1} << 33;

void check(test::rotation_case& c, test::token_positions positions, test::random& numbers) {
    c.target.positions = std::move(positions);
    CHECK_THAT(rotate(c, numbers), matches(c));
}

}  // namespace

TEST_CASE("offsets near and far, negative ones included", "[positions]") {
    SEEDED(numbers);
    const test::twin linear = test::linear_twin({.head_dim = 40}, 3), plain = test::plain_twin({.head_dim = 128});
    for (const std::int64_t first : {std::int64_t{0}, std::int64_t{1}, std::int64_t{-5}, std::int64_t{4096},
                                     std::int64_t{1000000}, max_id - 10, min_id + 1, min_id}) {
        for (const rw::element_type type : test::types_of_backend()) {
            test::rotation_case c = test::random_case(numbers, linear, 11, first);
            c.type = type;
            CHECK_THAT(rotate(c, numbers), matches(c));
        }
    }
    for (std::int64_t i = 0; i < test::cases(60); ++i) {
        const test::rotation_case c = test::random_case(numbers, plain, 9, numbers.integer(-far, far));
        CHECK_THAT(rotate(c, numbers), matches(c));
    }
}

TEST_CASE("32- and 64-bit ids, per batch row or shared, with more ids than tokens", "[positions]") {
    SEEDED(numbers);
    const test::twin linear = test::linear_twin({.head_dim = 96}, 3);
    for (std::int64_t i = 0; i < test::cases(60); ++i) {
        test::rotation_case c = test::random_case(numbers, linear);
        for (const std::int64_t extra : {0, 4}) {
            check(c, test::random_ids<std::int32_t>(numbers, c.q, min_id, max_id, c.q.batch, extra), numbers);
            check(c, test::random_ids<std::int64_t>(numbers, c.q, -far, far, c.q.batch, extra), numbers);
        }
        check(c, test::random_ids<std::int32_t>(numbers, c.q, min_id, max_id, 1), numbers);
        check(c, test::random_ids<std::int64_t>(numbers, c.q, -far, far, 1), numbers);
    }
}

TEST_CASE("fractional positions, with magnitudes too", "[positions]") {
    SEEDED(numbers);
    const test::twin plain = test::plain_twin({.head_dim = 80}),
                     xpos = test::xpos_twin({.head_dim = 72, .rotary_dim = 64, .rotary_offset = 8}, {.length = 512});
    for (std::int64_t i = 0; i < test::cases(30); ++i) {
        test::rotation_case c = test::random_case(numbers, plain), m = test::random_case(numbers, xpos);
        check(c, test::random_ids<rw::fixed_position>(numbers, c.q, min_id, max_id, c.q.batch), numbers);
        check(m, test::random_ids<rw::fixed_position>(numbers, m.q, -200, 900, m.q.batch), numbers);
    }
}

TEST_CASE("ragged batches count every sequence from its own start, empty ones included", "[positions]") {
    SEEDED(numbers);
    const test::twin linear = test::linear_twin({.head_dim = 64}, 3);
    for (std::int64_t i = 0; i < test::cases(60); ++i) {
        test::rotation_case c = test::random_case(numbers, linear);
        std::vector<std::int64_t> lengths(static_cast<std::size_t>(numbers.integer(1, 30)));
        for (std::int64_t& length : lengths) length = numbers.integer(0, 9);
        lengths.back() = numbers.integer(1, 9);
        const std::int64_t first = numbers.integer(-100, 1000000);
        c.q.batch = 1, c.q.tokens = std::ssize(test::ragged<std::int64_t>(lengths, first).exact);
        check(c, test::ragged<std::int64_t>(lengths, first), numbers);
        check(c, test::ragged<std::int32_t>(lengths, first), numbers);
    }
}

TEST_CASE("ragged sequences and batch rows start at an offset of their own, or at one that they share", "[positions]") {
    SEEDED(numbers);
    const test::twin plain = test::plain_twin({.head_dim = 64}),
                     xpos = test::xpos_twin({.head_dim = 72, .rotary_dim = 64, .rotary_offset = 8}, {.length = 512});
    const auto offsets = [&]<class O>(O, std::int64_t count, bool near) {
        const std::int64_t low = near             ? -200
                                 : sizeof(O) == 4 ? min_id
                                                  : -far,
                           high = near             ? 900
                                  : sizeof(O) == 4 ? max_id - 300
                                                   : far;
        std::vector<O> all(static_cast<std::size_t>(count));
        for (O& one : all) one = static_cast<O>(numbers.integer(low, high));
        return all;
    };
    for (const test::twin& encoding : {std::as_const(plain), xpos}) {
        const bool near = encoding.ours.has_magnitude();
        for (std::int64_t i = 0; i < test::cases(8); ++i) {
            test::rotation_case c = test::random_case(numbers, encoding);
            for (const std::int64_t count : {c.q.batch, std::int64_t{1}}) {
                check(c, test::from_row_offsets(c.q, offsets(std::int32_t{}, count, near)), numbers);
                check(c, test::from_row_offsets(c.q, offsets(std::int64_t{}, count, near)), numbers);
            }
            std::vector<std::int64_t> lengths(static_cast<std::size_t>(numbers.integer(1, 30)));
            for (std::int64_t& length : lengths) length = numbers.integer(0, 9);
            lengths.front() = numbers.integer(1, 9);
            c.q.batch = 1, c.q.tokens = std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
            for (const std::int64_t count : {std::ssize(lengths), std::ptrdiff_t{1}}) {
                check(c, test::ragged_at<std::int32_t>(lengths, offsets(std::int32_t{}, count, near)), numbers);
                check(c, test::ragged_at<std::int32_t>(lengths, offsets(std::int64_t{}, count, near)), numbers);
                check(c, test::ragged_at<std::int64_t>(lengths, offsets(std::int32_t{}, count, near)), numbers);
                check(c, test::ragged_at<std::int64_t>(lengths, offsets(std::int64_t{}, count, near)), numbers);
            }
        }
    }
}

TEST_CASE("several positions per token: each pair follows the axis of its section", "[positions][mrope]") {
    SEEDED(numbers);
    const rw::Geometry head{.head_dim = 72, .rotary_dim = 64, .rotary_offset = 4, .base = 1e6};
    std::vector<test::encoded_at> all = test::all_sections(head);
    all.push_back(test::mrope({.head_dim = 128, .base = 1e6}, {16, 24, 24}));
    for (const test::encoded_at& sections : all) {
        REQUIRE(sections.encoding.ours.has_axes());
        for (const rw::element_type type : test::types_of_backend()) {
            for (const rw::layout_kind layout : test::all_layouts) {
                test::rotation_case c = test::random_case(numbers, sections.encoding);
                c.type = type, c.layout = layout, c.target.axes = sections.axes;
                for (const std::int64_t rows : {std::int64_t{1}, c.q.batch}) {
                    check(c, test::random_axis_ids<std::int32_t>(numbers, c.q, min_id, max_id, rows), numbers);
                    check(c, test::random_axis_ids<std::int64_t>(numbers, c.q, -far, far, rows), numbers);
                }
            }
        }
    }
}

TEST_CASE("a shift rotates every token by one distance, without the centre and the attention factor", "[positions]") {
    SEEDED(numbers);
    test::twin scaled{rw::make_encoding({.head_dim = 48}, rw::Linear{.factor = 3}, test::Constant{1.25}),
                      oracle::encode(oracle::linear(oracle::plain(1e4, 48), 3))};
    scaled.exact.factor = 1.25;
    const test::twin xpos = test::xpos_twin({.head_dim = 72, .rotary_dim = 64, .rotary_offset = 8}, {.length = 600});
    REQUIRE(xpos.ours.centre == 300);
    constexpr rw::direction directions[] = {rw::direction::forward, rw::direction::inverse, rw::direction::adjoint,
                                            rw::direction::inverse_adjoint};
    for (const test::twin& encoding : {std::as_const(scaled), xpos}) {
        for (const std::int64_t distance : {-512, -1, 0, 1, 512}) {
            for (const rw::direction direction : directions) {
                test::rotation_case c = test::random_case(numbers, encoding);
                c.direction = direction;
                check(c, test::from_shift(c.q, distance), numbers);
            }
        }
    }
    for (const std::int64_t distance : {-far, min_id, max_id, far}) {
        test::rotation_case c = test::random_case(numbers, scaled);
        check(c, test::from_shift(c.q, distance), numbers);
    }
}

TEST_CASE("a re-rotation between shifts, and from positions to a shift", "[positions][rerotate]") {
    SEEDED(numbers);
    const rw::Geometry head{.head_dim = 64};
    const test::twin linear = test::linear_twin(head, 3), xpos = test::xpos_twin(head, {.length = 600}),
                     plain = test::plain_twin(head);
    for (const auto& [from, to] : {std::pair{&linear, &plain}, std::pair{&xpos, &xpos}, std::pair{&plain, &xpos}}) {
        for (std::int64_t i = 0; i < test::cases(12); ++i) {
            test::rotation_case c = test::random_case(numbers, *to);
            c.q.heads = 0;
            c.source = test::encoded_at{*from, test::from_shift(c.q, numbers.integer(-200, 200))};
            check(c, test::from_shift(c.q, numbers.integer(-200, 200)), numbers);
            c.source->positions = test::random_ids<std::int32_t>(numbers, c.q, 0, 600, c.q.batch);
            check(c, test::from_shift(c.q, numbers.integer(-200, 200)), numbers);
        }
    }
}

}  // namespace position_cases
