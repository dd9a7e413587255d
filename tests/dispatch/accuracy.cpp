// The promised error bounds, over random policies, bases, widths and positions.
#include "calls.hpp"
#include "cases/rotation_case.hpp"

namespace rw = ropewalk;

namespace {

constexpr std::int64_t two_31 = std::int64_t{1} << 31;

/// A position in (−2^31, 2^31): near zero, near the ends or anywhere.
std::int64_t random_position(test::random& numbers) {
    switch (numbers.integer(0, 3)) {
        case 0:
            return numbers.integer(0, 4096);
        case 1:
            return numbers.one_of(
                {1 - two_31, two_31 - 1, -numbers.integer(0, 4096), two_31 - numbers.integer(1, 4096)});
        default:
            return numbers.integer(1 - two_31, two_31 - 1);
    }
}

rw::Geometry random_geometry(test::random& numbers) {
    const std::int64_t width =
        numbers.coin() ? numbers.one_of<std::int64_t>({2, 4, 64, 80, 96, 128, 256, 512}) : 2 * numbers.integer(1, 256);
    const std::int64_t before = numbers.coin() ? 0 : numbers.integer(0, 9),
                       after = numbers.coin() ? 0 : numbers.integer(0, 9);
    return {.head_dim = before + width + after,
            .rotary_dim = width,
            .rotary_offset = before,
            .base = test::random_base(numbers)};
}

template <class F>
std::vector<std::int64_t> make_ids(std::int64_t count, const F& id) {
    std::vector<std::int64_t> ids;
    for (std::int64_t i = 0; i < count; ++i) ids.push_back(id());
    return ids;
}

/// Rotates one random tensor, as queries in place or as keys out of place, and compares.
test::verdict compare_one(test::random& numbers, rw::element_type type, rw::layout_kind layout, const test::twin& t,
                          const std::vector<std::int64_t>& ids) {
    test::rotation_case c = test::case_at(t, 0);
    c.type = type, c.layout = layout;
    c.axes = numbers.one_of({test::order::bshd, test::order::bhsd, test::order::padded});
    const bool is_query = c.in_place = numbers.coin();
    c.q.batch = 1, c.q.tokens = std::ssize(ids), c.q.heads = c.k_heads = numbers.integer(1, 3);
    (is_query ? c.k_heads : c.q.heads) = 0;
    c.target.positions = test::from_ids(c.q, ids, 1);
    const test::rotated result = rotate(c, numbers);
    const test::operand& x = is_query ? result.q : result.k;
    const auto exact = expected(c, x.in.size(), x.before.values(), is_query ? oracle::role::query : oracle::role::key);
    return test::compare(x.result(), exact, test::shape_of(x.in.size(), c.geometry(), layout));
}

/// Sums compare_one() until `enough` pairs of `type` are compared by the encodings and ids that `next` makes.
template <class F>
void check_pairs(test::random& numbers, rw::element_type type, std::int64_t enough, const F& next) {
    test::verdict all;
    while (all.pairs < enough) {
        const auto [t, ids] = next();
        INFO(t.ours.expression << ", base " << t.ours.geometry.base << ", width " << t.ours.geometry.width());
        for (const rw::layout_kind layout : test::all_layouts) all += compare_one(numbers, type, layout, t, ids);
        REQUIRE(all.first_problem == "");
    }
    UNSCOPED_INFO(rw::to_string(type) << ": " << all.pairs << " pairs, worst error over norm " << all.worst);
    CHECK(all.pairs >= enough);
}

}  // namespace

TEST_CASE("cos and sin are within 1.2e-7 of exact for |p| < 2^31 over all policies, bases and widths", "[accuracy]") {
    SEEDED(numbers);
    double worst = 0;
    for (std::int64_t count = 0, goal = test::cases(1000000); count < goal;) {
        const test::twin t = test::random_twin(numbers, random_geometry(numbers));
        const auto ids = make_ids(40, [&] { return random_position(numbers); });
        std::vector<float> cos(ids.size() * t.ours.steps.size()), sin(cos.size());
        const auto layout = test::all_layouts[numbers.integer(0, 1)];
        rw::dispatch::cos_sin(layout, t.ours, rw::ids(ids), 40, t.ours.pairs(), cos, sin);
        const double error = test::table_error(t.exact, test::from_ids({1, 40, 1, 2}, ids, 1).exact, cos, sin);
        INFO(t.ours.expression << ", base " << t.ours.geometry.base << ", width " << t.ours.geometry.width());
        CHECK(error <= 1.2e-7);
        worst = std::max(worst, error);
        count += std::ssize(cos);
    }
    UNSCOPED_INFO("worst error of cos and sin " << worst);
    CHECK(worst > 0);
}

TEST_CASE("a million random rotations: f32 within 3e-7 of the pair's norm, 16 bits within one rounding of that",
          "[accuracy]") {
    SEEDED(numbers);
    for (const rw::element_type type : test::all_types) {
        check_pairs(numbers, type, test::cases(400000), [&] {
            return std::pair(test::random_twin(numbers, random_geometry(numbers)),
                             make_ids(24, [&] { return random_position(numbers); }));
        });
    }
}

TEST_CASE("xpos: rotations with magnitudes stay as close, where the element type holds them", "[accuracy][xpos]") {
    SEEDED(numbers);
    for (const rw::element_type type : test::all_types) {
        for (std::int64_t i = 0; i < test::cases(60); ++i) {
            check_pairs(numbers, type, 1, [&] {
                const test::twin t =
                    test::xpos_twin(random_geometry(numbers), {.scale_base = numbers.logarithmic(128, 2048),
                                                               .gamma = numbers.uniform(0.2, 1),
                                                               .length = numbers.integer(0, 2000)});
                // Products of a normal number with 2^±10 are seldom subnormal in f16.
                const std::int64_t reach = t.ours.reach(type == rw::element_type::f16 ? 10.0 : 120.0);
                return std::pair(t, make_ids(24, [&] { return t.ours.centre + numbers.integer(-reach, reach); }));
            });
        }
    }
}

TEST_CASE("far beyond 2^31 the rotation is still that of the steps, in exact 64-bit arithmetic", "[accuracy]") {
    SEEDED(numbers);
    for (int i = 0; i < 40; ++i) {
        test::rotation_case c =
            test::random_case(numbers, test::random_twin(numbers, {.head_dim = 2 * numbers.integer(1, 64)}));
        const std::int64_t first =
            numbers.one_of({std::int64_t{1} << 41, -(std::int64_t{1} << 41), std::int64_t{1} << 62,
                            std::numeric_limits<std::int64_t>::min(), static_cast<std::int64_t>(numbers.bits() >> 1)});
        c.type = rw::element_type::f32;
        c.target.positions.given = rw::offset{first};
        c.map = [&](std::int64_t pair, std::int64_t token) {
            const std::uint64_t phase = static_cast<std::uint64_t>(first + token % c.q.tokens) *
                                        c.target.encoding.ours.steps[static_cast<std::size_t>(pair)];
            const double angle = static_cast<double>(static_cast<std::int64_t>(phase)) * 0x1p-64 * oracle::two_pi.hi;
            return oracle::unit{std::cos(angle), std::sin(angle)};
        };
        CHECK_THAT(rotate(c, numbers), matches(c));
    }
}

TEST_CASE("f64 is within 4e-16 of the norm, and 2^-62 turn per token for the steps", "[accuracy]") {
    SEEDED(numbers);
    using wide = long double;
    constexpr wide two_pi = 6.283185307179586476925286766559005768L;
    double worst = 0;
    for (std::int64_t count = 0, goal = test::cases(100000); count < goal;) {
        const test::twin t = test::random_twin(numbers, {.head_dim = 2 * numbers.integer(1, 64)});
        const auto layout = test::all_layouts[numbers.integer(0, 1)];
        const bool near = numbers.coin();
        const auto ids = make_ids(20, [&] { return near ? numbers.integer(-64, 64) : random_position(numbers); });
        test::array x(rw::element_type::f64, {1, 20, 1, t.ours.geometry.head_dim}, numbers);
        const std::vector<double> before = x.values();
        test::rotate_q(layout, x, t.ours, rw::ids(ids));
        const std::vector<double> after = x.values();
        const oracle::shape s = test::shape_of({}, t.ours.geometry, layout);
        for (std::size_t i = 0; i < 20 * t.exact.turns.size(); ++i, ++count) {
            const std::size_t token = i / t.exact.turns.size(), pair = i % t.exact.turns.size();
            const auto position = static_cast<double>(ids[token]);
            const oracle::dd turns = oracle::reduced_product(position, t.exact.turns[pair]);
            const wide angle = (static_cast<wide>(turns.hi) + static_cast<wide>(turns.lo)) * two_pi;
            const wide cos = std::cos(angle), sin = std::sin(angle);
            const auto first = static_cast<std::size_t>(s.first(static_cast<std::int64_t>(pair))) +
                               token * static_cast<std::size_t>(s.width);
            const auto second = static_cast<std::size_t>(s.second(static_cast<std::int64_t>(pair))) +
                                token * static_cast<std::size_t>(s.width);
            const wide a = before[first], b = before[second];
            const wide error = std::hypot(after[first] - (a * cos - b * sin), after[second] - (b * cos + a * sin));
            const double steps = 1.37e-18 * std::fabs(position);  // 2^-62 turn per token, in radians
            worst = std::max(worst, static_cast<double>(error / std::hypot(a, b)) - steps);
        }
    }
    UNSCOPED_INFO("worst error over norm " << worst);
    CHECK(worst <= 4e-16);
    CHECK(worst > 1e-16);
}
