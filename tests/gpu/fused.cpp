#include <ropewalk/gpu/fused.hpp>

#include <cstring>

#include "fused_trial.hpp"
#include "support/catch.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;
namespace gpu = ropewalk::gpu;

namespace {

constexpr std::int64_t tokens = 7, q_heads = 6, kv_heads = 2, head_dim = 64,
                       width = (q_heads + 2 * kv_heads) * head_dim;

/// A packed projection, and its three parts in arrays of their own.
struct packed_case {
    test::array packed, q, k, v;

    packed_case(rw::element_type type, test::random& numbers)
        : packed(type, {1, tokens, 1, width}, numbers),
          q(part(type, 0, q_heads)),
          k(part(type, q_heads, kv_heads)),
          v(part(type, q_heads + kv_heads, kv_heads)) {}

    test::array part(rw::element_type type, std::int64_t first, std::int64_t heads) {
        const auto values = packed.values();
        std::vector<double> own;
        for (std::int64_t t = 0; t < tokens; ++t) {
            const auto begin = values.begin() + t * width + first * head_dim;
            own.insert(own.end(), begin, begin + heads * head_dim);
        }
        test::array result(type, {1, tokens, heads, head_dim});
        result.set(own);
        return result;
    }
    template <class T>
    gpu::qkv<T> split() {
        return gpu::split_qkv(static_cast<T*>(packed.tensor().data), tokens, width, q_heads, kv_heads, head_dim);
    }
    /// Rotates q and k by the kernel that does nothing else.
    void rotate(rw::layout_kind layout, const rw::Encoding& by, const rw::positions& where) {
        test::memory_log log;
        log.watch(q), log.watch(k);
        test::run_on_host(layout, gpu::make_plan(layout, q.tensor(), k.tensor(), q.tensor(), k.tensor(), by, where, {}),
                          log);
    }
};

}  // namespace

TEMPLATE_TEST_CASE("a packed projection is split and rotated into three tensors", "[gpu][split]", float, rw::f16,
                   rw::bf16) {
    SEEDED(numbers);
    const auto by = rw::make_encoding({.head_dim = head_dim}, rw::Linear{.factor = 4});
    for (const auto layout : test::all_layouts) {
        const auto type = rw::type_of<TestType>;
        packed_case one(type, numbers);
        const test::array before = one.packed;
        test::array q(type, one.q.size()), k(type, one.k.size()), v(type, one.v.size());
        const auto plan = gpu::make_fused_plan<TestType>(layout, one.split<TestType>(),
                                                         {q.view<TestType>(), k.view<TestType>(), v.view<TestType>()},
                                                         {}, by, rw::offset{90000}, {});
        CHECK(plan.shape.bytes == 16);
        test::memory_log log;
        for (test::array* each : {&one.packed, &q, &k, &v}) log.watch(*each);
        test::run_on_host(layout, plan, log);
        CHECK(log.problem() == "");
        one.rotate(layout, by, rw::offset{90000});
        CHECK(q == one.q);
        CHECK(k == one.k);
        CHECK(v == one.v);
        CHECK(one.packed == before);
    }
}

TEMPLATE_TEST_CASE("a packed projection is rotated where it lies, its values go to a cache", "[gpu][split]", float,
                   rw::f16, rw::bf16) {
    SEEDED(numbers);
    const auto by = rw::make_encoding({.head_dim = head_dim}, rw::Default{});
    const auto type = rw::type_of<TestType>;
    packed_case one(type, numbers);
    const test::array values = one.v;
    test::cache_memory cache(gpu::cache_type_of<TestType>(), {1, 16, kv_heads, head_dim}, test::cache_order::nhd);
    auto in = one.split<TestType>();
    const auto plan = gpu::make_fused_plan<TestType>(
        rw::layout_kind::half_split, in, {in.q, in.k, {}},
        {.cache = {{}, cache.tensor()}, .slots = gpu::by_sequence(rw::offset{3})}, by, rw::offset{3}, {});
    test::memory_log log;
    log.watch(one.packed);
    cache.watch(log);
    test::run_on_host(rw::layout_kind::half_split, plan, log);
    CHECK(log.problem() == "");
    one.rotate(rw::layout_kind::half_split, by, rw::offset{3});
    CHECK(one.part(type, 0, q_heads) == one.q);
    CHECK(one.part(type, q_heads, kv_heads) == one.k);
    CHECK(one.part(type, q_heads + kv_heads, kv_heads) == values);
    const auto expected = values.values();
    for (std::int64_t row = 0; row < tokens * kv_heads; ++row)
        cache.expect(0, 3 + row / kv_heads, row % kv_heads, expected.data() + row * head_dim);
    CHECK(cache.problem(log) == "");
}

TEST_CASE("a packed row must be as wide as its heads", "[gpu][split]") {
    float element = 0;
    CHECK_REFUSED(gpu::split_qkv(&element, 1, 640, 6, 3, 64), "640", "6", "3", "64");
}

TEST_CASE("tables, several axes and ragged batches turn fused heads as they turn others", "[gpu][split]") {
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
    const rw::cos_sin_table table{cos.data(),
                                  sin.data(),
                                  rw::element_type::f32,
                                  tokens,
                                  head_dim / 2,
                                  head_dim / 2,
                                  rw::cos_sin_table::rows_are::by_token};
    const auto check = [&](const rw::Encoding& by, const rw::positions& where, const gpu::options& chosen) {
        packed_case one(rw::element_type::bf16, numbers);
        test::array q = one.q, k = one.k;
        test::memory_log log;
        for (test::array* each : {&q, &k, &one.q, &one.k}) log.watch(*each);
        test::run_on_host(
            layout,
            test::make_plan_of(rw::element_type::bf16, layout, {q.tensor(), k.tensor(), {}, q.tensor(), k.tensor(), {}},
                               {}, by, where, chosen),
            log);
        test::run_on_host(
            layout,
            gpu::make_plan(layout, one.q.tensor(), one.k.tensor(), one.q.tensor(), one.k.tensor(), by, where, chosen),
            log);
        CHECK(q == one.q);
        CHECK(k == one.k);
    };
    check(mrope, rw::axis_ids(std::span<const std::int64_t>(axes)), {});
    check(mrope, rw::cu_seqlens(std::span<const std::int32_t>(starts), 40), {});
    check(mrope, rw::offset{0}, {.table = table});
}
