#include <cmath>

#include "fused_trial.hpp"
#include "support/catch.hpp"
#include "support/effort.hpp"
#include "backend.hpp"

namespace rw = ropewalk;
namespace gpu = ropewalk::gpu;

namespace {

test::fused_trial normed_trial(test::random& numbers, rw::element_type type, rw::layout_kind layout,
                               const rw::Geometry& geometry) {
    test::fused_trial one;
    one.type = type, one.layout = layout, one.by = test::random_twin(numbers, geometry);
    one.q = {2, 3, 6, geometry.head_dim}, one.kv_heads = 3, one.v_dim = geometry.head_dim;
    one.q_norm = true, one.k_norm = numbers.coin(), one.one_plus = numbers.coin();
    one.weight_type = test::all_types[numbers.integer(0, 2)];
    one.in_place = numbers.coin();
    one.first = numbers.integer(-1000000, 1000000);
    one.device = test::random_device(numbers);
    return one;
}

}  // namespace

TEST_CASE("a norm is x over the root of its mean square, times the weights", "[gpu][norm]") {
    SEEDED(numbers);
    for (const std::int64_t head_dim : {64, 80, 99, 128, 192, 256, 512, 1024}) {
        for (const bool one_plus : {false, true}) {
            const std::int64_t rotary = head_dim % 2 == 0 ? head_dim : head_dim - 1;
            const auto encoding = rw::make_encoding({.head_dim = head_dim, .rotary_dim = rotary}, rw::Default{});
            test::array x(rw::element_type::f32, {1, 2, 3, head_dim}, numbers);
            test::weights w(rw::element_type::f32, head_dim, numbers);
            const double epsilon = 1e-3;
            const auto got = test::normed(x, rw::layout_kind::half_split, w.norm(epsilon, one_plus), encoding);
            const auto before = x.values(), weight = w.values();
            const auto n = static_cast<std::size_t>(head_dim);
            double worst = 0;
            for (std::size_t head = 0; head < got.size() / n; ++head) {
                double sum = 0;
                for (std::size_t i = 0; i < n; ++i) sum += before[head * n + i] * before[head * n + i];
                const double scale = 1 / std::sqrt(sum / static_cast<double>(n) + epsilon);
                for (std::size_t i = 0; i < n; ++i) {
                    const double exact = before[head * n + i] * scale * (weight[i] + (one_plus ? 1 : 0));
                    worst = std::max(worst, std::fabs(got[head * n + i] - exact) / (std::fabs(exact) + 1e-3));
                }
            }
            INFO("head_dim " << head_dim);
            CHECK(worst < 6e-7);
        }
    }
}

TEST_CASE("norm and rotation in one are the two after another, whatever the access", "[gpu][norm]") {
    SEEDED(numbers);
    constexpr rw::Geometry geometries[] = {{.head_dim = 128},
                                           {.head_dim = 80},
                                           {.head_dim = 256, .rotary_dim = 64},
                                           {.head_dim = 192, .rotary_dim = 64, .rotary_offset = 128},
                                           {.head_dim = 100, .rotary_dim = 94, .rotary_offset = 4},
                                           {.head_dim = 99, .rotary_dim = 36, .rotary_offset = 7}};
    for (const auto layout : test::all_layouts) {
        for (const auto type : test::all_types) {
            for (const rw::Geometry& geometry : geometries) {
                for (const test::order order : test::all_orders) {
                    test::fused_trial one = normed_trial(numbers, type, layout, geometry);
                    one.where_in_memory = order;
                    REQUIRE(test::problem_of(one, numbers) == "");
                }
            }
            test::fused_trial wide = normed_trial(numbers, type, layout, {.head_dim = 512});
            REQUIRE(test::problem_of(wide, numbers) == "");
        }
    }
}

TEST_CASE("norm, rotation and caches in one launch", "[gpu][norm]") {
    SEEDED(numbers);
    for (const auto type : test::all_types) {
        for (const auto cache : test::all_cache_types) {
            for (const auto layout : test::all_layouts) {
                test::fused_trial one = normed_trial(numbers, type, layout, {.head_dim = 128});
                one.k_norm = true, one.k_output = numbers.coin(), one.v_output = numbers.coin();
                one.k_cache = cache, one.v_cache = cache;
                REQUIRE(test::problem_of(one, numbers) == "");
            }
        }
    }
}

TEST_CASE("a head of zeros stays zero, and a NaN stays in its head", "[gpu][norm]") {
    const auto encoding = rw::make_encoding({.head_dim = 64}, rw::Default{});
    SEEDED(numbers);
    test::array x(rw::element_type::f32, {1, 1, 3, 64}, numbers);
    auto values = x.values();
    for (std::size_t i = 0; i < 64; ++i) values[i] = 0;
    values[64] = std::nan("");
    x.set(values);
    test::weights w(rw::element_type::f32, 64, numbers);
    const auto got = test::normed(x, rw::layout_kind::half_split, w.norm(1e-6, false), encoding);
    for (std::size_t i = 0; i < 64; ++i) {
        CHECK(got[i] == 0);
        CHECK(std::isnan(got[64 + i]));
        CHECK(std::isfinite(got[128 + i]));
    }
}
