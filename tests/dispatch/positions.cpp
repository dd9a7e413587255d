#include <dispatch/dispatch.hpp>

#include <numeric>
#include <vector>

#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/encodings.hpp"

namespace rw = ropewalk;
namespace dispatch = ropewalk::dispatch;

namespace positions_tests {
namespace {

constexpr auto layout = rw::layout_kind::half_split;
constexpr test::extents size{3, 11, 2, 40};

test::twin linear_twin() {
    return {rw::make_encoding({.head_dim = 40}, rw::Linear{.factor = 3}),
            oracle::encode(oracle::linear(oracle::plain(10000, 40), 3))};
}

/// What is wrong with a rotation at the given positions, or "".
std::string problem_at(test::random& numbers, const test::twin& t, const rw::positions& where,
                       const std::vector<oracle::place>& places, const test::extents& extents = size) {
    test::array x(rw::element_type::f32, extents, numbers);
    const auto shape = test::shape_of(extents, t.ours.geometry, layout);
    const auto exact = oracle::rotate(shape, x.values(), t.exact, places);
    dispatch::rotate(layout, x.tensor(), test::none(), x.tensor(), test::none(), t.ours, where);
    return test::compare(x, exact, shape).first_problem;
}

template <class I>
std::vector<oracle::place> repeated(const std::vector<I>& ids, std::int64_t rows) {
    std::vector<oracle::place> places;
    for (std::int64_t row = 0; row < rows; ++row) {
        for (const I id : ids) places.push_back({static_cast<std::int64_t>(id), 0});
    }
    return places;
}

template <class I>
std::vector<I> random_ids(test::random& numbers, std::int64_t count) {
    std::vector<I> ids;
    for (std::int64_t i = 0; i < count; ++i) ids.push_back(static_cast<I>(numbers.integer(-2147483647, 2147483647)));
    return ids;
}

}  // namespace

TEST_CASE("an offset is the first token's position, negative ones and both ends of 32 bits included", "[positions]") {
    SEEDED(numbers);
    for (const std::int64_t first : {std::int64_t{0}, std::int64_t{1}, std::int64_t{-5}, std::int64_t{4096},
                                     std::int64_t{2147483637}, std::int64_t{-2147483647}}) {
        INFO("offset " << first);
        CHECK(problem_at(numbers, linear_twin(), rw::offset{first}, test::consecutive(size, first)) == "");
    }
}

TEST_CASE("32- and 64-bit ids, shared by the batch or row by row, in any order", "[positions]") {
    SEEDED(numbers);
    const auto t = linear_twin();
    const auto narrow = random_ids<std::int32_t>(numbers, size.tokens);
    const auto wide = random_ids<std::int64_t>(numbers, size.tokens);
    CHECK(problem_at(numbers, t, rw::ids(narrow), repeated(narrow, size.batch)) == "");
    CHECK(problem_at(numbers, t, rw::ids(wide), repeated(wide, size.batch)) == "");
    const auto narrow_rows = random_ids<std::int32_t>(numbers, size.batch * size.tokens);
    const auto wide_rows = random_ids<std::int64_t>(numbers, size.batch * size.tokens);
    CHECK(problem_at(numbers, t, rw::ids(std::span<const std::int32_t>(narrow_rows), size.batch),
                     repeated(narrow_rows, 1)) == "");
    CHECK(problem_at(numbers, t, rw::ids(std::span<const std::int64_t>(wide_rows), size.batch),
                     repeated(wide_rows, 1)) == "");
}

TEST_CASE("more ids than tokens are fine, and rows of ids may be padded", "[positions]") {
    SEEDED(numbers);
    const auto ids = random_ids<std::int64_t>(numbers, size.batch * (size.tokens + 4));
    rw::positions where = rw::ids(std::span<const std::int64_t>(ids), size.batch);
    std::vector<oracle::place> places;
    for (std::int64_t row = 0; row < size.batch; ++row) {
        for (std::int64_t i = 0; i < size.tokens; ++i)
            places.push_back({ids[static_cast<std::size_t>(row * (size.tokens + 4) + i)], 0});
    }
    CHECK(problem_at(numbers, linear_twin(), where, places) == "");
}

TEST_CASE("positions between the tokens", "[positions]") {
    SEEDED(numbers);
    std::vector<rw::fixed_position> fixed;
    std::vector<oracle::place> places;
    for (std::int64_t i = 0; i < size.batch * size.tokens; ++i) {
        fixed.push_back({static_cast<std::int64_t>(numbers.bits())});
        places.push_back({fixed.back().value >> 32, static_cast<std::uint32_t>(fixed.back().value)});
    }
    const auto where = rw::ids(std::span<const rw::fixed_position>(fixed), size.batch);
    CHECK(problem_at(numbers, linear_twin(), where, places) == "");
    // Half a token of xpos is half a token of magnitude too.
    for (auto& one : fixed) one.value >>= 17;
    for (std::size_t i = 0; i < fixed.size(); ++i)
        places[i] = {fixed[i].value >> 32, static_cast<std::uint32_t>(fixed[i].value)};
    CHECK(problem_at(numbers, test::xpos_twin({.head_dim = 40}, {.length = 2000}), where, places) == "");
}

TEST_CASE("ragged batches count every sequence from its own start", "[positions]") {
    SEEDED(numbers);
    const test::extents packed{1, 13, 3, 40};
    const std::vector<std::int64_t> starts{0, 0, 5, 6, 6, 13, 13};
    const std::vector<std::int32_t> narrow(starts.begin(), starts.end());
    for (const std::int64_t first : {0, 100, -3}) {
        std::vector<oracle::place> places;
        for (const std::int64_t length : {5, 1, 7}) {
            for (std::int64_t i = 0; i < length; ++i) places.push_back({first + i, 0});
        }
        CHECK(problem_at(numbers, linear_twin(), rw::cu_seqlens(starts, first), places, packed) == "");
        CHECK(problem_at(numbers, linear_twin(), rw::cu_seqlens(narrow, first), places, packed) == "");
    }
}

TEST_CASE("randomized positions reach the kernel as they were drawn, every batch row its own", "[positions]") {
    SEEDED(numbers);
    for (const char* const expression :
         {"randomized:64,seed=3", "randomized:64,epsilon=0.5,draw=2", "randomized_sorted:500,seed=9"}) {
        const rw::Geometry g{.head_dim = 40, .sequence_length = 64};
        const test::twin t{rw::make_encoding(g, expression), oracle::encode(oracle::plain(10000, 40))};
        std::vector<oracle::place> from_start, from_20;
        for (std::int64_t row = 0; row < size.batch; ++row) {
            std::vector<rw::fixed_position> drawn(64);
            t.ours.draw_positions(static_cast<std::uint64_t>(row), drawn);
            for (std::size_t i = 0; i < static_cast<std::size_t>(size.tokens); ++i) {
                const auto place = [&](std::size_t at) {
                    return oracle::place{drawn[at].value >> 32, static_cast<std::uint32_t>(drawn[at].value)};
                };
                from_start.push_back(place(i));
                from_20.push_back(place(20 + i));
            }
        }
        INFO(expression);
        CHECK(problem_at(numbers, t, rw::offset{0}, from_start) == "");
        // Decoding goes on where the same draw left off.
        CHECK(problem_at(numbers, t, rw::offset{20}, from_20) == "");
        std::vector<std::int32_t> ids(static_cast<std::size_t>(size.tokens));
        std::iota(ids.begin(), ids.end(), 20);
        CHECK(problem_at(numbers, t, rw::ids(ids), from_20) == "");
    }
}

TEST_CASE("randomized without a length draws as many as the call has tokens", "[positions]") {
    SEEDED(numbers);
    const test::twin t{rw::make_encoding({.head_dim = 40}, "randomized:seed=5"),
                       oracle::encode(oracle::plain(10000, 40))};
    std::vector<rw::fixed_position> drawn(static_cast<std::size_t>(size.tokens));
    std::vector<oracle::place> places;
    for (std::int64_t row = 0; row < size.batch; ++row) {
        rw::Randomized{.seed = 5}.draw_positions(static_cast<std::uint64_t>(row), drawn);
        for (const auto& one : drawn) places.push_back({one.value >> 32, static_cast<std::uint32_t>(one.value)});
    }
    CHECK(problem_at(numbers, t, rw::offset{0}, places) == "");
}

}  // namespace positions_tests
