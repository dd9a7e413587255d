// Fused calls on packed projections, with tables and several axes, and the norm by itself.
#include <ropewalk/gpu/fused.hpp>

#include <cmath>

#include "fused_host.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;
namespace gpu = ropewalk::gpu;

namespace fused_tests {
namespace {

constexpr std::int64_t tokens = 7, q_heads = 6, kv_heads = 2, head_dim = 64,
                       width = (q_heads + 2 * kv_heads) * head_dim;

/// A packed projection, and its three parts in arrays of their own.
struct packed_projection {
    test::array packed, q, k, v;

    packed_projection(rw::element_type type, test::random& numbers)
        : packed(type, {1, tokens, 1, width}, numbers),
          q(part(0, q_heads)),
          k(part(q_heads, kv_heads)),
          v(part(q_heads + kv_heads, kv_heads)) {}

    test::array part(std::int64_t first, std::int64_t heads) {
        const auto values = packed.values();
        std::vector<double> own;
        for (std::int64_t t = 0; t < tokens; ++t) {
            const auto begin = values.begin() + t * width + first * head_dim;
            own.insert(own.end(), begin, begin + heads * head_dim);
        }
        test::array result(packed.type(), {1, tokens, heads, head_dim});
        result.set(own);
        return result;
    }
    template <class T>
    gpu::qkv<T> split() {
        return gpu::split_qkv(static_cast<T*>(packed.tensor().data), tokens, width, q_heads, kv_heads, head_dim);
    }
    /// Rotates the arrays of q and k by the kernel without norm and cache.
    void rotate(rw::layout_kind layout, const rw::Encoding& encoding, const rw::positions& positions,
                const gpu::options& options = {}) {
        test::memory_log log;
        log.watch(q), log.watch(k);
        test::run_on_host(
            layout,
            gpu::make_plan(layout, q.tensor(), k.tensor(), q.tensor(), k.tensor(), encoding, positions, options), log);
    }
};

/// A tensor's values after a norm in float32.
std::vector<double> normed(test::array x, const test::array& weights, double epsilon, bool one_plus,
                           const rw::Encoding& encoding) {
    test::array copy = weights;
    gpu::head_norm norm(static_cast<const float*>(copy.tensor().data), epsilon, one_plus);
    test::norm_on_host(rw::layout_kind::half_split, x.tensor(), norm, encoding);
    return x.values();
}

}  // namespace

TEMPLATE_TEST_CASE("a packed projection is split and rotated into three tensors", "[gpu][fused]", float, rw::f16,
                   rw::bf16) {
    SEEDED(numbers);
    const auto encoding = rw::make_encoding({.head_dim = head_dim}, rw::Linear{.factor = 4});
    for (const auto layout : test::all_layouts) {
        const auto type = rw::type_of<TestType>;
        packed_projection p(type, numbers);
        const test::array before = p.packed;
        test::array q(type, p.q.size()), k(type, p.k.size()), v(type, p.v.size());
        const auto plan = gpu::make_fused_plan<TestType>(layout, p.split<TestType>(),
                                                         {q.view<TestType>(), k.view<TestType>(), v.view<TestType>()},
                                                         {}, encoding, rw::offset{90000}, {});
        CHECK(plan.shape.bytes == 16);
        test::memory_log log;
        for (test::array* each : {&p.packed, &q, &k, &v}) log.watch(*each);
        test::run_on_host(layout, plan, log);
        CHECK(log.problem() == "");
        p.rotate(layout, encoding, rw::offset{90000});
        CHECK(q == p.q);
        CHECK(k == p.k);
        CHECK(v == p.v);
        CHECK(p.packed == before);
    }
}

TEST_CASE("a packed row must be as wide as its heads", "[gpu][fused]") {
    float element = 0;
    CHECK_REFUSED(gpu::split_qkv(&element, 1, 640, 6, 3, 64), "640", "6", "3", "64");
}

TEST_CASE("tables, several axes and ragged batches rotate fused heads as they rotate others", "[gpu][fused]") {
    SEEDED(numbers);
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
        packed_projection p(rw::element_type::bf16, numbers);
        test::array q = p.q, k = p.k;
        test::memory_log log;
        log.watch(q), log.watch(k);
        const test::fused_tensors both{q.tensor(), k.tensor(), {}};
        test::run_on_host(layout, test::make_plan_of(layout, both, both, {}, mrope, positions, options), log);
        p.rotate(layout, mrope, positions, options);
        CHECK(q == p.q);
        CHECK(k == p.k);
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
