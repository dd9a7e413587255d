#include <ropewalk/cpu/rotate.hpp>

#include <vector>

#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/encodings.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;

namespace {

constexpr rw::Geometry head{.head_dim = 100, .rotary_dim = 94, .rotary_offset = 4};
constexpr test::extents q_size{2, 9, 4, 100}, k_size{2, 9, 2, 100};

test::twin scaled_twin() {
    return {rw::make_encoding(head, rw::Linear{.factor = 8}),
            oracle::encode(oracle::linear(oracle::plain(10000, 94), 8))};
}

template <class L>
std::string problem_of(const test::array& result, const std::vector<double>& before, const test::twin& t,
                       std::int64_t first, oracle::role who = oracle::role::query,
                       oracle::direction direction = oracle::direction::forward) {
    const auto shape = test::shape_of(result.size(), head, rw::kind_of<L>);
    const auto exact = oracle::rotate(shape, before, t.exact, test::consecutive(result.size(), first), who, direction);
    if (!result.guards_intact()) return "bytes around the tensor changed";
    return test::compare(result, exact, shape).first_problem;
}

template <class T, class L>
struct typed {
    using type = T;
    using layout = L;
};
using f32_half_split = typed<float, rw::half_split>;
using f16_interleaved = typed<rw::f16, rw::interleaved>;
using bf16_half_split = typed<rw::bf16, rw::half_split>;

}  // namespace

TEMPLATE_TEST_CASE("the header's kernels rotate q and k as the oracle does", "[cpu]", f32_half_split, f16_interleaved,
                   bf16_half_split) {
    using T = typename TestType::type;
    using L = typename TestType::layout;
    SEEDED(numbers);
    const test::twin t = scaled_twin();
    for (const test::order order : test::all_orders) {
        test::array q(rw::type_of<T>, q_size, numbers, order), k(rw::type_of<T>, k_size, numbers, order);
        test::array q_out(rw::type_of<T>, q_size, order), k_out(rw::type_of<T>, k_size, order);
        const auto q_before = q.values(), k_before = k.values();
        rw::cpu::rotate<L>(rw::view<const T>(q.view<T>()), rw::view<const T>(k.view<T>()), q_out.view<T>(),
                           k_out.view<T>(), t.ours, rw::offset{70000});
        rw::cpu::rotate<L>(q.view<T>(), k.view<T>(), t.ours, rw::offset{70000});
        CHECK(problem_of<L>(q, q_before, t, 70000) == "");
        CHECK(problem_of<L>(k, k_before, t, 70000, oracle::role::key) == "");
        CHECK(q_out == q);
        CHECK(k_out == k);
    }
}

TEMPLATE_TEST_CASE("q alone, k alone, back again, and with magnitudes", "[cpu]", f32_half_split, f16_interleaved,
                   bf16_half_split) {
    using T = typename TestType::type;
    using L = typename TestType::layout;
    SEEDED(numbers);
    const test::twin t = test::xpos_twin(head, {.length = 1000});
    test::array q(rw::type_of<T>, q_size, numbers), k(rw::type_of<T>, k_size, numbers);
    const auto q_before = q.values(), k_before = k.values();
    rw::cpu::rotate<L>(q.view<T>(), t.ours, rw::offset{300});
    rw::cpu::rotate<L>(rw::view<T>{}, k.view<T>(), t.ours, rw::offset{300});
    CHECK(problem_of<L>(q, q_before, t, 300) == "");
    CHECK(problem_of<L>(k, k_before, t, 300, oracle::role::key) == "");
    const auto turned = q.values();
    rw::cpu::rotate<L>(q.view<T>(), t.ours, rw::offset{300}, {.direction = rw::cpu::direction::inverse});
    CHECK(problem_of<L>(q, turned, t, 300, oracle::role::query, oracle::direction::inverse) == "");
}

TEMPLATE_TEST_CASE("queries and keys that alternate by heads are those of two calls", "[cpu]", f32_half_split,
                   f16_interleaved, bf16_half_split) {
    using T = typename TestType::type;
    using L = typename TestType::layout;
    SEEDED(numbers);
    const rw::Encoding e = test::xpos_twin(head, {.length = 1000}).ours;
    const auto kernel = rw::cpu::detail::kernel_for<T, L, rw::cpu::native_arch>(e.pairs());
    for (const test::order order : test::all_orders) {
        for (const std::int64_t k_heads : {12, 6, 1}) {
            for (const std::int64_t alternating : {1, 2, 5, 12}) {
                test::array q(rw::type_of<T>, {2, 3, 12, 100}, numbers, order);
                test::array k(rw::type_of<T>, {2, 3, k_heads, 100}, numbers, order);
                test::array q_out = q, k_out = k, q_alone = q, k_alone = k;
                q_out.fill(numbers);
                k_out.fill(numbers);
                for (const bool in_place : {false, true}) {
                    rw::cpu::rotate_plan plan = rw::cpu::make_plan(
                        rw::kind_of<L>, q.tensor(), k.tensor(), in_place ? q.tensor() : q_out.tensor(),
                        in_place ? k.tensor() : k_out.tensor(), e, rw::offset{300}, {});
                    plan.params.loop = {.order = rw::cpu::traversal::alternating, .alternating_heads = alternating};
                    rw::cpu::execute(plan.params, kernel, 1);
                }
                rw::cpu::rotate<L>(q_alone.view<T>(), e, rw::offset{300});
                rw::cpu::rotate<L>(rw::view<T>{}, k_alone.view<T>(), e, rw::offset{300});
                INFO(k_heads << " key heads, " << alternating << " at a time");
                CHECK(q == q_alone);
                CHECK(k == k_alone);
                CHECK(q_out == q_alone);
                CHECK(k_out == k_alone);
            }
        }
    }
}

TEMPLATE_TEST_CASE("a tensor alone whose halves alternate turns as it does in one go", "[cpu]", f32_half_split,
                   f16_interleaved, bf16_half_split) {
    using T = typename TestType::type;
    using L = typename TestType::layout;
    SEEDED(numbers);
    const rw::Encoding e = test::xpos_twin(head, {.length = 1000}).ours, before = test::plain_twin(head).ours;
    const auto kernel = rw::cpu::detail::kernel_for<T, L, rw::cpu::native_arch>(e.pairs());
    const auto alternate = [&](rw::cpu::rotate_plan plan, std::int64_t heads) {
        plan.params.loop = {.order = rw::cpu::traversal::alternating, .tile = 2, .alternating_heads = heads};
        rw::cpu::execute(plan.params, kernel, 1);
    };
    for (const auto& [batch, tokens] : {std::pair{1, 1}, {1, 2}, {1, 7}, {2, 3}, {3, 3}, {5, 1}}) {
        for (const std::int64_t heads : {1, 2, 3, 12}) {
            for (const test::order order : test::all_orders) {
                const test::array start(rw::type_of<T>, {batch, tokens, 5, 100}, numbers, order);
                test::array q = start, k = start, moved = start, q_once = start, k_once = start, moved_once = start;
                const auto plan = [&](const rw::tensor& q_in, const rw::tensor& k_in) {
                    return rw::cpu::make_plan(rw::kind_of<L>, q_in, k_in, q_in, k_in, e, rw::offset{300}, {});
                };
                alternate(plan(q.tensor(), {}), heads);
                alternate(plan({}, k.tensor()), heads);
                alternate(rw::cpu::make_rerotation_plan(rw::kind_of<L>, moved.tensor(), moved.tensor(), before,
                                                        rw::offset{7}, e, rw::offset{300}),
                          heads);
                rw::cpu::rotate<L>(q_once.view<T>(), e, rw::offset{300});
                rw::cpu::rotate<L>(rw::view<T>{}, k_once.view<T>(), e, rw::offset{300});
                rw::cpu::rerotate<L>(moved_once.view<T>(), before, rw::offset{7}, e, rw::offset{300});
                INFO("batch " << batch << ", tokens " << tokens << ", " << heads << " heads at a time");
                CHECK(q == q_once);
                CHECK(k == k_once);
                CHECK(moved == moved_once);
            }
        }
    }
}

TEST_CASE("the scratch of heads that follow one after the other fits a second cache", "[cpu]") {
    std::vector<float> memory(4096 * 8 * 2);
    for (const std::int64_t dim : {2, 16, 64, 128, 512}) {
        const std::int64_t tokens = std::ssize(memory) / (8 * dim);
        const auto q = rw::bhsd(memory.data(), 1, 8, tokens, dim);
        for (const char* const policy : {"default", "xpos:512,length=65536"}) {
            const rw::Encoding e = rw::make_encoding({.head_dim = dim}, policy);
            const rw::cpu::rotate_plan plan =
                rw::cpu::make_plan(rw::layout_kind::half_split, q, {}, q, {}, e, rw::offset{0}, {});
            CHECK(plan.params.loop.order == rw::cpu::traversal::heads_major);
            CHECK(rw::cpu::scratch_floats(plan.params) <= 160 * 1024);
        }
    }
}

TEMPLATE_TEST_CASE("rerotate moves keys to another encoding and position", "[cpu]", f32_half_split, f16_interleaved) {
    using T = typename TestType::type;
    using L = typename TestType::layout;
    SEEDED(numbers);
    const test::twin from = scaled_twin(), to = test::plain_twin(head);
    test::array k(rw::type_of<T>, k_size, numbers);
    const auto shape = test::shape_of(k_size, head, rw::kind_of<L>);
    const auto raw = oracle::rotate(shape, k.values(), from.exact, test::consecutive(k_size, 500), oracle::role::key,
                                    oracle::direction::inverse);
    const auto exact = oracle::rotate(shape, raw, to.exact, test::consecutive(k_size, -20), oracle::role::key);
    rw::cpu::rerotate<L>(k.view<T>(), from.ours, rw::offset{500}, to.ours, rw::offset{-20});
    CHECK(test::compare(k, exact, shape).first_problem == "");
}

TEST_CASE("the header's functions refuse what does not fit before they write", "[cpu]") {
    SEEDED(numbers);
    const rw::Encoding e = rw::make_encoding(rw::Geometry{.head_dim = 100, .layout = rw::layout_kind::half_split});
    test::array q(rw::element_type::f32, q_size, numbers), k(rw::element_type::f32, {1, 9, 2, 100}, numbers);
    const test::array q_before = q, k_before = k;
    CHECK_REFUSED(rw::cpu::rotate<rw::half_split>(q.view<float>(), k.view<float>(), e, rw::offset{0}), "batch 2",
                  "batch 1");
    CHECK_REFUSED(rw::cpu::rotate<rw::interleaved>(q.view<float>(), e, rw::offset{0}), "half_split", "interleaved");
    CHECK_REFUSED(rw::cpu::rerotate<rw::interleaved>(q.view<float>(), e, rw::offset{0}, e, rw::offset{1}), "half_split",
                  "interleaved");
    CHECK(q == q_before);
    CHECK(k == k_before);
}
