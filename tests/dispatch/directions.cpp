#include <dispatch/dispatch.hpp>

#include <cmath>
#include <vector>

#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/encodings.hpp"

namespace rw = ropewalk;
namespace dispatch = ropewalk::dispatch;
using rw::cpu::direction;

namespace directions_tests {
namespace {

constexpr test::extents size{2, 9, 3, 72};
constexpr rw::Geometry head{.head_dim = 72, .rotary_dim = 68, .rotary_offset = 2};
constexpr std::int64_t start = 1500;

struct pair_of_arrays {
    test::array q, k;
};

pair_of_arrays random_arrays(test::random& numbers, rw::element_type type) {
    return {test::array(type, size, numbers), test::array(type, size, numbers)};
}

void rotate(rw::layout_kind layout, pair_of_arrays& x, const rw::Encoding& e, direction direction) {
    rw::cpu::options options;
    options.direction = direction;
    dispatch::rotate(layout, x.q.tensor(), x.k.tensor(), x.q.tensor(), x.k.tensor(), e, rw::offset{start}, options);
}

double dot(const test::array& a, const test::array& b) {
    const auto x = a.values(), y = b.values();
    double sum = 0;
    for (std::size_t i = 0; i < x.size(); ++i) sum += x[i] * y[i];
    return sum;
}
double norm(const test::array& a) { return std::sqrt(dot(a, a)); }

std::vector<rw::Encoding> encodings() {
    return {rw::make_encoding(head, rw::Linear{.factor = 4}), rw::make_encoding(head, rw::XPos{.length = 2048}),
            rw::make_encoding(head, rw::XPos{.length = 100} | test::Constant{1.5})};
}

double largest_difference(const test::array& a, const test::array& b) {
    const auto x = a.values(), y = b.values();
    double worst = 0;
    for (std::size_t i = 0; i < x.size(); ++i) worst = std::max(worst, std::fabs(x[i] - y[i]));
    return worst;
}

}  // namespace

TEST_CASE("the inverse restores what was rotated, magnitudes too", "[directions]") {
    SEEDED(numbers);
    for (const rw::layout_kind layout : test::all_layouts) {
        for (const rw::Encoding& e : encodings()) {
            for (const rw::element_type type : test::all_types) {
                const pair_of_arrays before = random_arrays(numbers, type);
                pair_of_arrays x = before;
                rotate(layout, x, e, direction::forward);
                CHECK_FALSE(x.q == before.q);
                rotate(layout, x, e, direction::inverse);
                // One rounding forth and one back of numbers below 5, over a pair.
                const double bound = std::ldexp(16.0, 1 - x.q.format().digits);
                INFO(e.expression << ' ' << rw::to_string(type) << ' ' << rw::to_string(layout));
                CHECK(largest_difference(x.q, before.q) <= bound);
                CHECK(largest_difference(x.k, before.k) <= bound);
            }
        }
    }
}

TEST_CASE("inverse and adjoint are the oracle's", "[directions]") {
    SEEDED(numbers);
    for (const rw::layout_kind layout : test::all_layouts) {
        for (const rw::element_type type : test::all_types) {
            for (const auto& [direction, exact_direction] :
                 {std::pair{direction::inverse, oracle::direction::inverse},
                  std::pair{direction::adjoint, oracle::direction::adjoint}}) {
                test::twin t = test::xpos_twin(head, {.length = 2048});
                t.ours.attention_factor = t.exact.factor = 1.25;
                pair_of_arrays x = random_arrays(numbers, type);
                const auto shape = test::shape_of(size, head, layout);
                const auto places = test::consecutive(size, start);
                const auto q =
                    oracle::rotate(shape, x.q.values(), t.exact, places, oracle::role::query, exact_direction);
                const auto k = oracle::rotate(shape, x.k.values(), t.exact, places, oracle::role::key, exact_direction);
                rotate(layout, x, t.ours, direction);
                CHECK(test::compare(x.q, q, shape).first_problem == "");
                CHECK(test::compare(x.k, k, shape).first_problem == "");
            }
        }
    }
}

TEST_CASE("<R x, y> == <x, adjoint(R) y>, with magnitudes and a factor", "[directions]") {
    SEEDED(numbers);
    for (const rw::layout_kind layout : test::all_layouts) {
        for (const rw::Encoding& e : encodings()) {
            const pair_of_arrays x = random_arrays(numbers, rw::element_type::f32),
                                 y = random_arrays(numbers, rw::element_type::f32);
            pair_of_arrays forth = x, back = y;
            rotate(layout, forth, e, direction::forward);
            rotate(layout, back, e, direction::adjoint);
            INFO(e.expression << ' ' << rw::to_string(layout));
            CHECK(std::fabs(dot(forth.q, y.q) - dot(x.q, back.q)) <= 4e-7 * norm(forth.q) * norm(y.q));
            CHECK(std::fabs(dot(forth.k, y.k) - dot(x.k, back.k)) <= 4e-7 * norm(forth.k) * norm(y.k));
        }
    }
}

TEST_CASE("without magnitudes the adjoint is the inverse bit for bit", "[directions]") {
    SEEDED(numbers);
    const rw::Encoding e = rw::make_encoding(head, rw::Power{.k = 0.5});
    pair_of_arrays a = random_arrays(numbers, rw::element_type::f32), b = a;
    rotate(rw::layout_kind::half_split, a, e, direction::inverse);
    rotate(rw::layout_kind::half_split, b, e, direction::adjoint);
    CHECK(a.q == b.q);
    CHECK(a.k == b.k);
}

}  // namespace directions_tests
