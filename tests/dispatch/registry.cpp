// What holds of any policy, checked for each one of the registry by its own example.
#include <dispatch/dispatch.hpp>

#include <cmath>
#include <vector>

#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/registry.hpp"

namespace rw = ropewalk;
namespace dispatch = ropewalk::dispatch;
using rw::cpu::direction;

namespace registry_tests {
namespace {

constexpr test::extents size{2, 7, 3, 72};
/// Longer than what most examples were trained with, so that those which follow the length do something.
constexpr rw::Geometry head{.head_dim = 72, .rotary_dim = 68, .rotary_offset = 2, .sequence_length = 32768};

template <class P>
struct subject {
    test::definition<P> exact{head, test::example_for<P>(head)};
    rw::Encoding ours = rw::make_encoding(head, test::example_for<P>(head));
    /// Indices from 0 where they are looked up among drawn ones, else around the middle of the magnitudes.
    std::int64_t first = rw::PositionPolicy<P> ? 0 : exact.centre() + 700;
    std::vector<oracle::place> places = exact.places(size, first);
};

/// Calls f(subject, type, layout) for every policy, element type and layout.
template <class F>
void for_each_case(const F& f) {
    test::for_each_policy([&]<class P>() {
        const subject<P> one;
        for (const rw::element_type type : test::all_types) {
            for (const rw::layout_kind layout : test::all_layouts) {
                INFO(one.ours.expression << ' ' << rw::to_string(type) << ' ' << rw::to_string(layout));
                f(one, type, layout);
            }
        }
    });
}

void turn(rw::layout_kind layout, test::array* q, test::array* k, const rw::Encoding& e, std::int64_t first,
          direction direction = direction::forward) {
    rw::cpu::options options;
    options.direction = direction;
    const rw::tensor queries = q != nullptr ? q->tensor() : test::none(),
                     keys = k != nullptr ? k->tensor() : test::none();
    dispatch::rotate(layout, queries, keys, queries, keys, e, rw::offset{first}, options);
}

double dot(const std::vector<double>& a, const std::vector<double>& b, std::size_t from, std::size_t count) {
    double sum = 0;
    for (std::size_t i = from; i < from + count; ++i) sum += a[i] * b[i];
    return sum;
}
double dot(const test::array& a, const test::array& b) {
    const auto x = a.values(), y = b.values();
    return dot(x, y, 0, x.size());
}

}  // namespace

TEST_CASE("every policy: kernels turn queries and keys as its own frequencies and magnitudes say", "[registry]") {
    SEEDED(numbers);
    for_each_case([&](const auto& one, rw::element_type type, rw::layout_kind layout) {
        test::array q(type, size, numbers), k(type, size, numbers);
        const auto shape = test::shape_of(size, head, layout);
        const auto q_exact = one.exact.rotate(shape, q.values(), one.places, oracle::role::query),
                   k_exact = one.exact.rotate(shape, k.values(), one.places, oracle::role::key);
        turn(layout, &q, &k, one.ours, one.first);
        CHECK(test::compare(q, q_exact, shape).first_problem == "");
        CHECK(test::compare(k, k_exact, shape).first_problem == "");
    });
}

TEST_CASE("every policy: the inverse restores, and norms hold where there is no magnitude", "[registry]") {
    SEEDED(numbers);
    for_each_case([&](const auto& one, rw::element_type type, rw::layout_kind layout) {
        test::array q(type, size, numbers), k(type, size, numbers);
        const std::vector<double> q_before = q.values(), k_before = k.values();
        const auto shape = test::shape_of(size, head, layout);
        const double rounding = std::ldexp(1.0, -q.format().digits);
        turn(layout, &q, &k, one.ours, one.first);
        if (!one.ours.has_magnitude()) {
            const auto after = q.values();
            const auto width = static_cast<std::size_t>(head.width()), start = std::size_t{2};
            for (std::size_t row = 0; row < after.size(); row += 72) {
                const double was = std::sqrt(dot(q_before, q_before, row + start, width)),
                             is = std::sqrt(dot(after, after, row + start, width));
                CHECK(is == Approx(one.exact.factor() * was).epsilon(2 * rounding + 4e-7));
            }
        }
        turn(layout, &q, &k, one.ours, one.first, direction::inverse);
        // One rounding forth, of one kind, and one back, of another.
        CHECK(test::compare(q, q_before, shape, 2 * rounding + 1e-6).first_problem == "");
        CHECK(test::compare(k, k_before, shape, 2 * rounding + 1e-6).first_problem == "");
    });
}

TEST_CASE("every policy: <R x, y> == <x, adjoint(R) y>", "[registry]") {
    SEEDED(numbers);
    test::for_each_policy([&]<class P>() {
        const subject<P> one;
        for (const rw::layout_kind layout : test::all_layouts) {
            INFO(one.ours.expression << ' ' << rw::to_string(layout));
            const test::array x(rw::element_type::f32, size, numbers), y(rw::element_type::f32, size, numbers);
            test::array forth = x, back = y;
            turn(layout, &forth, nullptr, one.ours, one.first);
            turn(layout, &back, nullptr, one.ours, one.first, direction::adjoint);
            const double norms = std::sqrt(dot(forth, forth) * dot(y, y));
            CHECK(std::fabs(dot(forth, y) - dot(x, back)) <= 4e-7 * norms);
        }
    });
}

TEST_CASE("every policy that draws no positions: scores depend on the distance alone", "[registry]") {
    SEEDED(numbers);
    constexpr test::extents one_head{1, 1, 1, 72};
    test::for_each_policy([&]<class P>() {
        if constexpr (!rw::PositionPolicy<P>) {
            const subject<P> one;
            const test::array q(rw::element_type::f32, one_head, numbers), k(rw::element_type::f32, one_head, numbers);
            double room = 0;
            const auto score = [&](rw::layout_kind layout, std::int64_t p_q, std::int64_t p_k) {
                test::array query = q, key = k;
                turn(layout, &query, nullptr, one.ours, p_q);
                turn(layout, nullptr, &key, one.ours, p_k);
                room = std::max(room, std::sqrt(dot(query, query) * dot(key, key)));
                return dot(query, key);
            };
            for (const rw::layout_kind layout : test::all_layouts) {
                INFO(one.ours.expression << ' ' << rw::to_string(layout));
                const std::int64_t centre = one.exact.centre(), distance = numbers.integer(1, 500);
                const double near = score(layout, centre + distance, centre);
                // Wherever magnitudes allow it: anywhere in 31 bits.
                const std::int64_t far = one.ours.has_magnitude() ? 1000 : 2000000000;
                for (int i = 0; i < 10; ++i) {
                    const std::int64_t p = centre + numbers.integer(-far, far);
                    CHECK(std::fabs(score(layout, p + distance, p) - near) <= 6e-7 * room);
                }
                CHECK(std::fabs(score(layout, centre + distance + 1, centre) - near) > 1e-5);
            }
        }
    });
}

TEST_CASE("every policy: keys rerotated from default equal a fresh encoding within one rounding", "[registry]") {
    SEEDED(numbers);
    const rw::Encoding plain = rw::make_encoding(head);
    for_each_case([&](const auto& one, rw::element_type type, rw::layout_kind layout) {
        const test::array raw(type, size, numbers);
        test::array cached = raw, afresh = raw;
        turn(layout, nullptr, &cached, plain, one.first);
        turn(layout, nullptr, &afresh, one.ours, one.first);
        dispatch::rerotate(layout, cached.tensor(), cached.tensor(), plain, rw::offset{one.first}, one.ours,
                           rw::offset{one.first});
        // Half a rounding of the cached key and half of each result.
        const double rounding = std::ldexp(1.0, -cached.format().digits);
        const auto shape = test::shape_of(size, head, layout);
        CHECK(test::compare(cached, afresh.values(), shape, 2 * rounding + 4e-7).first_problem == "");
    });
}

}  // namespace registry_tests
