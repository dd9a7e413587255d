#include <dispatch/dispatch.hpp>

#include <vector>

#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/effort.hpp"
#include "support/encodings.hpp"

namespace rw = ropewalk;
namespace dispatch = ropewalk::dispatch;

namespace {

constexpr std::int64_t two_31 = std::int64_t{1} << 31;

/// −2^31 < p < 2^31: near zero, near the ends, and anywhere.
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
                       behind = numbers.coin() ? 0 : numbers.integer(0, 9);
    return {.head_dim = before + width + behind,
            .rotary_dim = width,
            .rotary_offset = before,
            .base = test::random_base(numbers)};
}

struct located {
    std::vector<std::int64_t> ids;
    std::vector<oracle::place> places;
};

template <class F>
located locate(std::int64_t count, const F& f) {
    located result;
    for (std::int64_t i = 0; i < count; ++i) {
        result.ids.push_back(f());
        result.places.push_back({result.ids.back(), 0});
    }
    return result;
}

/// Rotates one random tensor, as a query or as a key, in place or not, and compares.
test::verdict one_case(test::random& numbers, rw::element_type type, rw::layout_kind layout, const test::twin& t,
                       const located& at) {
    const test::extents size{1, static_cast<std::int64_t>(at.ids.size()), numbers.integer(1, 3),
                             t.ours.geometry.head_dim};
    test::array x(type, size, numbers, numbers.one_of({test::order::bshd, test::order::bhsd, test::order::padded}));
    const auto shape = test::shape_of(size, t.ours.geometry, layout);
    const auto who = numbers.coin() ? oracle::role::query : oracle::role::key;
    const auto exact = oracle::rotate(shape, x.values(), t.exact, at.places, who);
    const rw::positions where = rw::ids(at.ids);
    if (who == oracle::role::query) {
        dispatch::rotate(layout, x.tensor(), test::none(), x.tensor(), test::none(), t.ours, where);
        return test::compare(x, exact, shape);
    }
    test::array out(type, size);
    dispatch::rotate(layout, test::none(), x.tensor(), test::none(), out.tensor(), t.ours, where);
    return test::compare(out, exact, shape);
}

/// How far cos and sin of a table are from exact.
double table_error(const test::twin& t, const located& at, const std::vector<float>& cos,
                   const std::vector<float>& sin) {
    double worst = 0;
    const auto pairs = static_cast<std::size_t>(t.ours.pairs());
    for (std::size_t i = 0; i < at.ids.size(); ++i) {
        for (std::size_t j = 0; j < pairs; ++j) {
            const oracle::unit exact = oracle::cos_sin(t.exact.turns[j], at.places[i]);
            worst = std::max(worst, std::fabs(static_cast<double>(cos[i * pairs + j]) - exact.cos));
            worst = std::max(worst, std::fabs(static_cast<double>(sin[i * pairs + j]) - exact.sin));
        }
    }
    return worst;
}

}  // namespace

TEST_CASE("cos and sin are within 1.2e-7 of exact for |p| < 2^31 over all policies, bases and widths", "[accuracy]") {
    SEEDED(numbers);
    double worst = 0;
    for (std::int64_t done = 0, goal = test::cases(1000000); done < goal;) {
        const test::twin t = test::random_twin(numbers, random_geometry(numbers));
        const located at = locate(40, [&] { return random_position(numbers); });
        std::vector<float> cos(at.ids.size() * t.ours.steps.size()), sin(cos.size());
        const auto layout = numbers.one_of({rw::layout_kind::half_split, rw::layout_kind::interleaved});
        dispatch::cos_sin(layout, t.ours, rw::ids(at.ids), 40, t.ours.pairs(), cos, sin);
        const double error = table_error(t, at, cos, sin);
        INFO(t.ours.expression << ", base " << t.ours.geometry.base << ", width " << t.ours.geometry.width());
        CHECK(error <= 1.2e-7);
        worst = std::max(worst, error);
        done += static_cast<std::int64_t>(cos.size());
    }
    UNSCOPED_INFO("worst error of cos and sin " << worst);
    CHECK(worst > 0);
}

TEST_CASE("a million random rotations: f32 within 3e-7 of the pair's norm, 16 bits within one rounding of that",
          "[accuracy]") {
    SEEDED(numbers);
    for (const rw::element_type type : test::all_types) {
        test::verdict all;
        const std::int64_t goal = test::cases(400000);
        while (all.pairs < goal) {
            const test::twin t = test::random_twin(numbers, random_geometry(numbers));
            const located at = locate(24, [&] { return random_position(numbers); });
            INFO(t.ours.expression << ", base " << t.ours.geometry.base << ", width " << t.ours.geometry.width());
            for (const rw::layout_kind layout : test::all_layouts) all += one_case(numbers, type, layout, t, at);
            REQUIRE(all.first_problem == "");
        }
        UNSCOPED_INFO(rw::to_string(type) << ": " << all.pairs << " pairs, worst error over norm " << all.worst);
        CHECK(all.pairs >= goal);
    }
}

TEST_CASE("xpos: rotations with magnitudes stay as close, wherever the element type holds them", "[accuracy][xpos]") {
    SEEDED(numbers);
    for (const rw::element_type type : test::all_types) {
        test::verdict all;
        for (std::int64_t i = 0; i < test::cases(60); ++i) {
            const rw::XPos xpos{.scale_base = numbers.logarithmic(128, 2048),
                                .gamma = numbers.uniform(0.2, 1),
                                .length = numbers.integer(0, 2000)};
            const test::twin t = test::xpos_twin(random_geometry(numbers), xpos);
            // Products of a normal number with 2^±10 fit into f16 without becoming subnormal too often.
            const std::int64_t reach = t.ours.reach(type == rw::element_type::f16 ? 10.0 : 120.0);
            const located at = locate(24, [&] { return t.ours.centre + numbers.integer(-reach, reach); });
            INFO(t.ours.expression << ", width " << t.ours.geometry.width());
            for (const rw::layout_kind layout : test::all_layouts) all += one_case(numbers, type, layout, t, at);
            REQUIRE(all.first_problem == "");
        }
        UNSCOPED_INFO("xpos " << rw::to_string(type) << ": " << all.pairs << " pairs, worst error over norm "
                              << all.worst);
        CHECK(all.pairs > 0);
    }
}

TEST_CASE("far beyond 2^31 the rotation is still that of the steps, in exact 64-bit arithmetic", "[accuracy]") {
    SEEDED(numbers);
    for (int i = 0; i < 40; ++i) {
        const test::twin t = test::random_twin(numbers, {.head_dim = 2 * numbers.integer(1, 64)});
        const std::int64_t first =
            numbers.one_of({std::int64_t{1} << 41, -(std::int64_t{1} << 41), std::int64_t{1} << 62,
                            std::numeric_limits<std::int64_t>::min(), static_cast<std::int64_t>(numbers.bits() >> 1)});
        const test::extents size{1, 5, 2, t.ours.geometry.head_dim};
        const auto layout = numbers.one_of({rw::layout_kind::half_split, rw::layout_kind::interleaved});
        test::array x(rw::element_type::f32, size, numbers);
        auto exact = x.values();
        const auto shape = test::shape_of(size, t.ours.geometry, layout);
        oracle::apply(shape, exact, [&](std::int64_t pair, std::int64_t token) {
            const std::uint64_t phase =
                static_cast<std::uint64_t>(first + token) * t.ours.steps[static_cast<std::size_t>(pair)];
            const double angle = static_cast<double>(static_cast<std::int64_t>(phase)) * 0x1p-64 * oracle::two_pi.hi;
            return oracle::unit{std::cos(angle), std::sin(angle)};
        });
        dispatch::rotate(layout, x.tensor(), test::none(), x.tensor(), test::none(), t.ours, rw::offset{first});
        INFO(t.ours.expression << " from " << first);
        CHECK(test::compare(x, exact, shape).first_problem == "");
    }
}
