#include "trial.hpp"

#include <span>

#include "support/catch.hpp"
#include "support/effort.hpp"

namespace rw = ropewalk;

namespace {

test::trial base_trial(test::random& numbers, const test::twin& by) {
    test::trial one;
    one.type = numbers.one_of({rw::element_type::f32, rw::element_type::f16, rw::element_type::bf16});
    one.layout = numbers.coin() ? rw::layout_kind::half_split : rw::layout_kind::interleaved;
    one.by = by;
    one.q = {numbers.integer(1, 3), numbers.integer(1, 7), 4, by.ours.geometry.head_dim};
    one.in_place = numbers.coin();
    one.device = test::random_device(numbers);
    return one;
}

std::int64_t tokens_of(const test::trial& one) { return one.q.batch * one.q.tokens; }

}  // namespace

TEST_CASE("offsets and ids of either width, positions negative and far", "[gpu]") {
    SEEDED(numbers);
    const test::twin t = test::plain_twin({.head_dim = 128});
    for (std::int64_t i = 0; i < test::cases(60); ++i) {
        test::trial one = base_trial(numbers, t);
        const std::int64_t first = numbers.integer(-(std::int64_t{1} << 31), std::int64_t{1} << 31);
        one.where = rw::offset{first}, one.places = test::consecutive(one.q, first);
        CHECK(test::problem_of(one, numbers) == "");

        std::vector<std::int32_t> narrow;
        std::vector<std::int64_t> wide;
        one.places.clear();
        std::vector<oracle::place> far;
        for (std::int64_t token = 0; token < tokens_of(one); ++token) {
            narrow.push_back(static_cast<std::int32_t>(numbers.bits()));
            wide.push_back(numbers.integer(-(std::int64_t{1} << 31), std::int64_t{1} << 31));
            one.places.push_back({narrow.back(), 0});
            far.push_back({wide.back(), 0});
        }
        one.where = rw::ids(std::span<const std::int32_t>(narrow), one.q.batch);
        CHECK(test::problem_of(one, numbers) == "");
        one.where = rw::ids(std::span<const std::int64_t>(wide), one.q.batch), one.places = far;
        CHECK(test::problem_of(one, numbers) == "");
    }
}

TEST_CASE("one row of ids serves every batch row", "[gpu]") {
    SEEDED(numbers);
    test::trial one = base_trial(numbers, test::plain_twin({.head_dim = 64}));
    one.q.batch = 3, one.q.tokens = 4;
    const std::vector<std::int64_t> ids{9, 2, 700, -3};
    one.where = rw::ids(std::span<const std::int64_t>(ids));
    for (int row = 0; row < 3; ++row)
        for (const std::int64_t id : ids) one.places.push_back({id, 0});
    CHECK(test::problem_of(one, numbers) == "");
}

TEST_CASE("positions between the tokens", "[gpu]") {
    SEEDED(numbers);
    const test::twin t = test::plain_twin({.head_dim = 80});
    for (std::int64_t i = 0; i < test::cases(30); ++i) {
        test::trial one = base_trial(numbers, t);
        std::vector<rw::fixed_position> fixed;
        for (std::int64_t token = 0; token < tokens_of(one); ++token) {
            const auto whole = static_cast<std::int32_t>(numbers.bits());
            const auto fraction = static_cast<std::uint32_t>(numbers.bits());
            fixed.push_back({std::int64_t{whole} * (std::int64_t{1} << 32) + fraction});
            one.places.push_back({whole, fraction});
        }
        one.where = rw::ids(std::span<const rw::fixed_position>(fixed), one.q.batch);
        CHECK(test::problem_of(one, numbers) == "");
    }
}

TEST_CASE("numbers drawn by a position policy are given as fixed ids", "[gpu]") {
    SEEDED(numbers);
    test::trial one = base_trial(numbers, test::plain_twin({.head_dim = 64}));
    one.q.batch = 1, one.q.tokens = 6;
    const rw::Encoding drawn = rw::make_encoding({.head_dim = 64}, "randomized:512,seed=3");
    std::vector<rw::fixed_position> fixed(512);
    drawn.place(0, fixed);
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

TEMPLATE_TEST_CASE("ragged batches, empty sequences among them", "[gpu]", std::int32_t, std::int64_t) {
    SEEDED(numbers);
    const test::twin t = test::plain_twin({.head_dim = 64});
    for (std::int64_t i = 0; i < test::cases(40); ++i) {
        test::trial one = base_trial(numbers, t);
        std::vector<TestType> starts{0};
        const std::int64_t first = numbers.integer(-100, 100000);
        for (std::int64_t sequence = numbers.integer(1, 6); sequence > 0; --sequence) {
            const std::int64_t length = numbers.integer(0, 5);
            for (std::int64_t token = 0; token < length; ++token) one.places.push_back({first + token, 0});
            starts.push_back(static_cast<TestType>(starts.back() + length));
        }
        if (one.places.empty()) continue;
        one.q.batch = 1, one.q.tokens = starts.back();
        one.where = rw::cu_seqlens(std::span<const TestType>(starts), first);
        CHECK(test::problem_of(one, numbers) == "");
    }
}

TEST_CASE("cu_seqlens that make no sense are read within their bounds", "[gpu]") {
    SEEDED(numbers);
    const rw::Encoding e = rw::make_encoding({.head_dim = 64});
    for (const std::vector<std::int64_t>& starts :
         {std::vector<std::int64_t>{5, 3, -100}, std::vector<std::int64_t>{std::numeric_limits<std::int64_t>::min(), 1},
          std::vector<std::int64_t>{0, 2, 1, 900}}) {
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
    const rw::Geometry head{.head_dim = 128, .base = 1e6};
    const rw::Encoding e = rw::make_encoding(head, "mrope:[16,24,24]");
    REQUIRE(e.has_axes());
    const auto turns = oracle::encode(oracle::plain(1e6, 128)).turns;
    for (std::int64_t i = 0; i < test::cases(30); ++i) {
        test::trial one = base_trial(numbers, {e, {}});
        const auto tokens = static_cast<std::size_t>(tokens_of(one));
        std::vector<std::int32_t> ids(3 * tokens);
        for (std::int32_t& id : ids) id = static_cast<std::int32_t>(numbers.integer(-5000, 500000));
        one.where = rw::axis_ids(std::span<const std::int32_t>(ids), one.q.batch);
        one.map = [&](std::int64_t pair, std::int64_t token) {
            const std::size_t axis = pair < 16 ? 0 : pair < 40 ? 1 : 2;
            return oracle::cos_sin(turns[static_cast<std::size_t>(pair)],
                                   {ids[axis * tokens + static_cast<std::size_t>(token)], 0});
        };
        CHECK(test::problem_of(one, numbers) == "");
    }
}
