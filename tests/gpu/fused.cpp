// Packed projections, fused calls with tables and several axes, and the norm by itself.
#include <ropewalk/gpu/fused.hpp>

#include <cmath>

#include "fused_host.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;
namespace gpu = ropewalk::gpu;

namespace fused_tests {
namespace {

/// A tensor's values after a norm in float32.
std::vector<double> normed(test::array x, const test::array& weights, double epsilon, bool one_plus,
                           const rw::Encoding& encoding) {
    test::array copy = weights;
    gpu::head_norm norm(static_cast<const float*>(copy.tensor().data), epsilon, one_plus);
    test::norm_on_host(rw::layout_kind::half_split, x.tensor(), norm, encoding);
    return x.values();
}

}  // namespace

TEST_CASE("split_qkv() finds queries, keys and values in a packed projection", "[gpu][fused]") {
    std::vector<rw::bf16> packed(7 * 640);
    const auto [q, k, v] = gpu::split_qkv(packed.data(), 7, 10 * 64, 6, 2, 64);
    const auto heads = [&](std::int64_t first, std::int64_t count) {
        return rw::view<rw::bf16>(packed.data() + first * 64, 1, 7, count, 64, 7 * 640, 640, 64);
    };
    CHECK(q == heads(0, 6));
    CHECK(k == heads(6, 2));
    CHECK(v == heads(8, 2));
    CHECK_REFUSED(gpu::split_qkv(packed.data(), 1, 640, 6, 3, 64), "640", "6", "3", "64");
}

TEST_CASE("tables, several axes and ragged batches rotate fused heads as they rotate others", "[gpu][fused]") {
    SEEDED(numbers);
    constexpr std::int64_t tokens = 7, head_dim = 64;
    const auto layout = rw::layout_kind::interleaved;
    const auto mrope = rw::make_encoding({.head_dim = head_dim}, rw::MRope{.sections = {8, 12, 12}});
    const std::vector<std::int32_t> starts{0, 2, 7};
    std::vector<std::int64_t> axes;
    for (std::int64_t i = 0; i < 3 * tokens; ++i) axes.push_back(numbers.integer(0, 5000));
    std::vector<float> cos, sin;
    for (std::int64_t i = 0; i < tokens * head_dim / 2; ++i) {
        cos.push_back(static_cast<float>(numbers.normal()));
        sin.push_back(static_cast<float>(numbers.normal()));
    }
    const rw::cos_sin_table table{.cos = cos.data(),
                                  .sin = sin.data(),
                                  .rows = tokens,
                                  .columns = head_dim / 2,
                                  .stride_row = head_dim / 2,
                                  .order = rw::cos_sin_table::rows_are::by_token};
    const auto check = [&](const rw::positions& positions, const gpu::options& options) {
        test::array q(rw::element_type::bf16, {1, tokens, 6, head_dim}, numbers),
            k(rw::element_type::bf16, {1, tokens, 2, head_dim}, numbers), q_fused = q, k_fused = k;
        test::memory_log log;
        for (const test::array* each : {&q, &k, &q_fused, &k_fused}) log.watch(*each);
        const test::fused_tensors both{q_fused.tensor(), k_fused.tensor(), {}};
        test::run_on_host(layout, test::make_plan_of(layout, both, both, {}, mrope, positions, options), log);
        test::run_on_host(
            layout, gpu::make_plan(layout, q.tensor(), k.tensor(), q.tensor(), k.tensor(), mrope, positions, options),
            log);
        CHECK(q_fused == q);
        CHECK(k_fused == k);
    };
    check(rw::axis_ids(std::span<const std::int64_t>(axes)), {});
    check(rw::cu_seqlens(std::span<const std::int32_t>(starts), 40), {});
    check(rw::offset{0}, {.table = table});
}

TEST_CASE("a norm is x over the root of its mean square, times the weights", "[gpu][fused]") {
    SEEDED(numbers);
    for (const std::int64_t dim : {64, 80, 99, 128, 192, 256, 512, 1024}) {
        for (const bool one_plus : {false, true}) {
            const auto encoding = rw::make_encoding({.head_dim = dim, .rotary_dim = dim / 2 * 2}, rw::Default{});
            const test::array x(rw::element_type::f32, {1, 2, 3, dim}, numbers),
                weights(rw::element_type::f32, {1, 1, 1, dim}, numbers);
            const double epsilon = 1e-3;
            const auto got = normed(x, weights, epsilon, one_plus, encoding), before = x.values(),
                       weight = weights.values();
            const auto n = static_cast<std::size_t>(dim);
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
            INFO("head_dim " << dim);
            CHECK(worst < 6e-7);
        }
    }
}

TEST_CASE("a head of zeros stays zero, and a NaN stays in its head", "[gpu][fused]") {
    SEEDED(numbers);
    test::array x(rw::element_type::f32, {1, 1, 3, 64}, numbers);
    auto values = x.values();
    for (std::size_t i = 0; i < 64; ++i) values[i] = 0;
    values[64] = std::nan("");
    x.set(values);
    const auto got = normed(x, test::array(rw::element_type::f32, {1, 1, 1, 64}, numbers), 1e-6, false,
                            rw::make_encoding({.head_dim = 64}, rw::Default{}));
    for (std::size_t i = 0; i < 64; ++i) {
        CHECK(got[i] == 0);
        CHECK(std::isnan(got[64 + i]));
        CHECK(std::isfinite(got[128 + i]));
    }
}

}  // namespace fused_tests
