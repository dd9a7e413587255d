#include "trial.hpp"

#include <span>

#include "support/catch.hpp"
#include "support/effort.hpp"
#include "support/position_trials.hpp"

namespace rw = ropewalk;

TEST_CASE("offsets, positions negative and far", "[gpu]") {
    SEEDED(numbers);
    const test::twin t = test::plain_twin({.head_dim = 128});
    for (std::int64_t i = 0; i < test::cases(60); ++i) {
        test::trial one = test::random_trial(numbers, t);
        const std::int64_t first = numbers.integer(-(std::int64_t{1} << 31), std::int64_t{1} << 31);
        one.where = rw::offset{first}, one.places = test::consecutive(one.q, first);
        CHECK(test::problem_of(one, numbers) == "");
    }
}

TEST_CASE("ids of 32 and 64 bits, and one row of them for every batch row", "[gpu]") {
    SEEDED(numbers);
    const test::twin t = test::plain_twin({.head_dim = 128});
    for (std::int64_t i = 0; i < test::cases(60); ++i) test::check_ids(test::random_trial(numbers, t), numbers);
}

TEST_CASE("positions between the tokens", "[gpu]") {
    SEEDED(numbers);
    const test::twin t = test::plain_twin({.head_dim = 80});
    for (std::int64_t i = 0; i < test::cases(30); ++i)
        test::check_fractions(test::random_trial(numbers, t), numbers, test::least_id, test::most_id);
}

TEST_CASE("numbers drawn by a position policy are given as fixed ids", "[gpu]") {
    SEEDED(numbers);
    test::trial one = test::random_trial(numbers, test::plain_twin({.head_dim = 64}));
    one.q.batch = 1, one.q.tokens = 6;
    const rw::Encoding drawn = rw::make_encoding({.head_dim = 64}, "randomized:512,seed=3");
    std::vector<rw::fixed_position> fixed(512);
    drawn.draw_positions(0, fixed);
    fixed.resize(6);
    for (const rw::fixed_position& at : fixed)
        one.places.push_back({at.value >> 32, static_cast<std::uint32_t>(at.value)});
    one.where = rw::ids(std::span<const rw::fixed_position>(fixed));
    CHECK(test::problem_of(one, numbers) == "");

    // The encoding itself, which the CPU's calls would draw from, takes them too.
    test::array q(rw::element_type::f32, {1, 6, 2, 64}, numbers);
    const auto before = q.values();
    test::memory_log log;
    log.watch(q);
    const auto layout = rw::layout_kind::half_split;
    test::run_on_host(
        layout, rw::gpu::make_plan(layout, q.tensor(), test::none(), q.tensor(), test::none(), drawn, one.where, {}),
        log);
    const auto shape = test::shape_of(q.size(), drawn.geometry, layout);
    CHECK(test::compare(q, oracle::rotate(shape, before, one.by.exact, one.places), shape).first_problem == "");
}

TEST_CASE("ragged batches, empty sequences among them", "[gpu]") {
    SEEDED(numbers);
    const test::twin t = test::plain_twin({.head_dim = 64});
    for (std::int64_t i = 0; i < test::cases(60); ++i)
        test::check_ragged(test::random_trial(numbers, t), numbers, 6, 5);
}

TEST_CASE("cu_seqlens that make no sense are read within their bounds", "[gpu]") {
    SEEDED(numbers);
    const rw::Encoding e = rw::make_encoding({.head_dim = 64});
    for (const std::vector<std::int64_t>& starts : test::senseless_starts()) {
        test::array q(rw::element_type::f32, {1, 9, 2, 64}, numbers);
        test::memory_log log;
        log.watch(q);
        const auto layout = rw::layout_kind::half_split;
        test::run_on_host(layout,
                          rw::gpu::make_plan(layout, q.tensor(), test::none(), q.tensor(), test::none(), e,
                                             rw::cu_seqlens(std::span<const std::int64_t>(starts)), {}),
                          log);
        CHECK(log.problem() == "");
        CHECK(q.guards_intact());
    }
}

TEST_CASE("several positions a token, each pair following its own", "[gpu]") {
    SEEDED(numbers);
    const test::twin t = test::three_axes();
    REQUIRE(t.ours.has_axes());
    for (std::int64_t i = 0; i < test::cases(30); ++i) test::check_axes(test::random_trial(numbers, t), numbers);
}
