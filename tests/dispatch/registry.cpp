// Properties of every policy in the registry, checked by the policy's own example.
#include "support/registry.hpp"

#include "calls.hpp"

namespace rw = ropewalk;
using rw::direction;

namespace registry_tests {
namespace {

constexpr test::extents size{2, 7, 3, 72};
/// Longer than the training length of most examples, so that policies that follow the length take effect.
constexpr rw::Geometry head{.head_dim = 72, .rotary_dim = 68, .rotary_offset = 2, .sequence_length = 32768};

template <class P>
struct subject {
    test::definition<P> exact{head, test::example_for<P>(head)};
    rw::Encoding ours = rw::make_encoding(head, test::example_for<P>(head));
    /// Indices from 0 where positions are drawn, else around the middle of the magnitudes.
    std::int64_t first = rw::PositionPolicy<P> ? 0 : exact.centre() + 700;
    std::vector<oracle::place> places = exact.places(size, first);
};

/// Calls f(subject, type, layout) for every policy, element type and layout.
template <class F>
void for_each_case(const F& f) {
    test::for_each_policy([&]<class P>() {
        const subject<P> policy;
        for (const rw::element_type type : test::all_types) {
            for (const rw::layout_kind layout : test::all_layouts) {
                INFO(policy.ours.expression << ' ' << rw::to_string(type) << ' ' << rw::to_string(layout));
                f(policy, type, layout);
            }
        }
    });
}

double dot(const std::vector<double>& a, const std::vector<double>& b, std::size_t first, std::size_t count) {
    double sum = 0;
    for (std::size_t i = first; i < first + count; ++i) sum += a[i] * b[i];
    return sum;
}
double dot(const test::array& a, const test::array& b) {
    const auto x = a.values(), y = b.values();
    return dot(x, y, 0, x.size());
}

/// Bound of two roundings of a pair to a type, over its norm.
double two_roundings(const test::array& x) { return 2 * std::ldexp(1.0, -x.format().digits); }

}  // namespace

TEST_CASE("every policy: kernels rotate queries and keys as its definition says", "[registry]") {
    SEEDED(numbers);
    for_each_case([&](const auto& policy, rw::element_type type, rw::layout_kind layout) {
        test::array q(type, size, numbers), k(type, size, numbers);
        const auto shape = test::shape_of(size, head, layout);
        const auto q_exact = policy.exact.rotate(shape, q.values(), policy.places, oracle::role::query),
                   k_exact = policy.exact.rotate(shape, k.values(), policy.places, oracle::role::key);
        test::rotate_both(layout, q, k, policy.ours, rw::offset{policy.first});
        CHECK_THAT(q, test::matches(q_exact, shape));
        CHECK_THAT(k, test::matches(k_exact, shape));
    });
}

TEST_CASE("every policy: the inverse restores, and norms hold where there is no magnitude", "[registry]") {
    SEEDED(numbers);
    for_each_case([&](const auto& policy, rw::element_type type, rw::layout_kind layout) {
        test::array q(type, size, numbers), k(type, size, numbers);
        const std::vector<double> q_before = q.values(), k_before = k.values();
        const auto shape = test::shape_of(size, head, layout);
        test::rotate_both(layout, q, k, policy.ours, rw::offset{policy.first});
        if (!policy.ours.has_magnitude()) {
            const auto after = q.values();
            const auto width = static_cast<std::size_t>(head.width()), start = std::size_t{2};
            for (std::size_t row = 0; row < after.size(); row += 72) {
                const double before_norm = std::sqrt(dot(q_before, q_before, row + start, width)),
                             after_norm = std::sqrt(dot(after, after, row + start, width));
                CHECK(after_norm == Approx(policy.exact.factor() * before_norm).epsilon(two_roundings(q) + 4e-7));
            }
        }
        test::rotate_both(layout, q, k, policy.ours, rw::offset{policy.first}, {.direction = direction::inverse});
        CHECK_THAT(q, test::matches(q_before, shape, two_roundings(q) + 1e-6));
        CHECK_THAT(k, test::matches(k_before, shape, two_roundings(q) + 1e-6));
    });
}

TEST_CASE("every policy: <R x, y> == <x, adjoint(R) y>", "[registry]") {
    SEEDED(numbers);
    test::for_each_policy([&]<class P>() {
        const subject<P> policy;
        for (const rw::layout_kind layout : test::all_layouts) {
            INFO(policy.ours.expression << ' ' << rw::to_string(layout));
            const test::array x(rw::element_type::f32, size, numbers), y(rw::element_type::f32, size, numbers);
            test::array rotated = x, adjoint = y;
            test::rotate_q(layout, rotated, policy.ours, rw::offset{policy.first});
            test::rotate_q(layout, adjoint, policy.ours, rw::offset{policy.first}, {.direction = direction::adjoint});
            const double norms = std::sqrt(dot(rotated, rotated) * dot(y, y));
            CHECK(std::fabs(dot(rotated, y) - dot(x, adjoint)) <= 4e-7 * norms);
        }
    });
}

TEST_CASE("every policy that draws no positions: scores depend on the distance alone", "[registry]") {
    SEEDED(numbers);
    constexpr test::extents one_head{1, 1, 1, 72};
    test::for_each_policy([&]<class P>() {
        if constexpr (!rw::PositionPolicy<P>) {
            const subject<P> policy;
            const test::array q(rw::element_type::f32, one_head, numbers), k(rw::element_type::f32, one_head, numbers);
            double room = 0;
            const auto score = [&](rw::layout_kind layout, std::int64_t p_q, std::int64_t p_k) {
                test::array query = q, key = k;
                test::rotate_q(layout, query, policy.ours, rw::offset{p_q});
                test::rotate_k(layout, key, policy.ours, rw::offset{p_k});
                room = std::max(room, std::sqrt(dot(query, query) * dot(key, key)));
                return dot(query, key);
            };
            for (const rw::layout_kind layout : test::all_layouts) {
                INFO(policy.ours.expression << ' ' << rw::to_string(layout));
                const std::int64_t centre = policy.exact.centre(), distance = numbers.integer(1, 500);
                const double near = score(layout, centre + distance, centre);
                // Anywhere in 31 bits, or where magnitudes allow it.
                const std::int64_t far = policy.ours.has_magnitude() ? 1000 : 2000000000;
                for (int i = 0; i < 10; ++i) {
                    const std::int64_t p = centre + numbers.integer(-far, far);
                    CHECK(std::fabs(score(layout, p + distance, p) - near) <= 6e-7 * room);
                }
                CHECK(std::fabs(score(layout, centre + distance + 1, centre) - near) > 1e-5);
            }
        }
    });
}

TEST_CASE("every policy: keys re-rotated from default equal a fresh encoding within one rounding", "[registry]") {
    SEEDED(numbers);
    const rw::Encoding plain = rw::make_encoding(head);
    for_each_case([&](const auto& policy, rw::element_type type, rw::layout_kind layout) {
        test::array cached(type, size, numbers), fresh = cached;
        test::rotate_k(layout, cached, plain, rw::offset{policy.first});
        test::rotate_k(layout, fresh, policy.ours, rw::offset{policy.first});
        test::rerotate(layout, cached, plain, rw::offset{policy.first}, policy.ours, rw::offset{policy.first});
        // Half a rounding of the cached key and half of each result.
        const auto shape = test::shape_of(size, head, layout);
        CHECK_THAT(cached, test::matches(fresh.values(), shape, two_roundings(cached) + 4e-7));
    });
}

}  // namespace registry_tests
