// Kernels of the headers, compiled with the flags of this file.
#include <ropewalk/cpu/rotate.hpp>

#include "cases/rotation_case.hpp"
#include "cpu/typed.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;

using test::bf16_half_split;
using test::f16_interleaved;
using test::f32_half_split;
using test::f64_interleaved;

namespace {

/// Rotates a case of one type and layout by the calls that users of the headers make.
template <class T, class L>
test::rotated rotate(test::rotation_case& c, test::random& numbers) {
    c.type = rw::type_of<T>, c.layout = rw::kind_of<L>;
    test::rotated r(c, numbers);
    const auto view = [](test::operand& x) { return x.exists() ? x.in.view<T>() : rw::view<T>{}; };
    const auto output = [](test::operand& x) { return x.exists() ? x.result().view<T>() : rw::view<T>{}; };
    const rw::Encoding& target = c.target.encoding.ours;
    const rw::positions& positions = c.target.positions.given;
    if (c.source) {
        rw::cpu::rerotate<L>(view(r.k), c.source->encoding.ours, c.source->positions.given, target, positions);
    } else if (c.in_place) {
        rw::cpu::rotate<L>(view(r.q), view(r.k), target, positions, {.direction = c.direction});
    } else {
        rw::cpu::rotate<L>(rw::view<const T>(view(r.q)), rw::view<const T>(view(r.k)), output(r.q), output(r.k), target,
                           positions, {.direction = c.direction});
    }
    return r;
}

}  // namespace

TEMPLATE_TEST_CASE("kernels of the headers rotate q and k as the oracle does", "[cpu]", f32_half_split, f16_interleaved,
                   bf16_half_split, f64_interleaved) {
    SEEDED(numbers);
    const test::twin linear = test::linear_twin(test::partial_head, 8),
                     xpos = test::xpos_twin(test::partial_head, {.length = 1000});
    for (const test::order axes : test::all_orders) {
        for (const bool in_place : {true, false}) {
            test::rotation_case c = test::case_at(linear, 70000);
            c.q = {2, 9, 4, 100}, c.axes = axes, c.in_place = in_place;
            c.target.positions = test::from_offset(c.q, 70000);
            CHECK_THAT((rotate<typename TestType::type, typename TestType::layout>(c, numbers)), matches(c));
        }
    }
    for (const auto& [q_heads, k_heads] : {std::pair{4, 2}, {4, 0}, {0, 2}}) {
        for (const rw::direction direction : {rw::direction::forward, rw::direction::inverse}) {
            test::rotation_case c = test::case_at(xpos, 300);
            c.q.heads = q_heads, c.k_heads = k_heads, c.direction = direction;
            CHECK_THAT((rotate<typename TestType::type, typename TestType::layout>(c, numbers)), matches(c));
        }
    }
}

TEMPLATE_TEST_CASE("re-rotation by the headers moves keys to another encoding and position", "[cpu]", f32_half_split,
                   f16_interleaved) {
    SEEDED(numbers);
    test::rotation_case c = test::case_at(test::plain_twin(test::partial_head), -20);
    c.q.heads = 0, c.source = {test::linear_twin(test::partial_head, 8), test::from_offset(c.q, 500)};
    CHECK_THAT((rotate<typename TestType::type, typename TestType::layout>(c, numbers)), matches(c));
}

TEMPLATE_TEST_CASE("queries and keys that alternate by heads equal those of two calls", "[cpu]", f32_half_split,
                   f16_interleaved, bf16_half_split) {
    using T = typename TestType::type;
    using L = typename TestType::layout;
    SEEDED(numbers);
    const rw::Encoding e = test::xpos_twin(test::partial_head, {.length = 1000}).ours;
    const auto kernel = rw::cpu::kernel_of<T, L, rw::cpu::native_arch>.run;
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

TEMPLATE_TEST_CASE("a tensor alone whose halves alternate equals that of one pass", "[cpu]", f32_half_split,
                   f16_interleaved, bf16_half_split) {
    using T = typename TestType::type;
    using L = typename TestType::layout;
    SEEDED(numbers);
    const rw::Encoding e = test::xpos_twin(test::partial_head, {.length = 1000}).ours,
                       before = test::plain_twin(test::partial_head).ours;
    const auto kernel = rw::cpu::kernel_of<T, L, rw::cpu::native_arch>.run;
    const auto alternate = [&](rw::cpu::rotate_plan plan, std::int64_t heads) {
        plan.params.loop = {.order = rw::cpu::traversal::alternating, .tile = 2, .alternating_heads = heads};
        rw::cpu::execute(plan.params, kernel, 1);
    };
    for (const auto& [batch, tokens] : {std::pair{1, 1}, {1, 2}, {1, 7}, {2, 3}, {3, 3}, {5, 1}}) {
        for (const std::int64_t heads : {1, 2, 3, 12}) {
            for (const test::order order : test::all_orders) {
                const test::array start(rw::type_of<T>, {batch, tokens, 5, 100}, numbers, order);
                test::array q = start, k = start, moved = start, q_alone = start, k_alone = start, moved_alone = start;
                const auto plan = [&](const rw::tensor& q_in, const rw::tensor& k_in) {
                    return rw::cpu::make_plan(rw::kind_of<L>, q_in, k_in, q_in, k_in, e, rw::offset{300}, {});
                };
                alternate(plan(q.tensor(), {}), heads);
                alternate(plan({}, k.tensor()), heads);
                alternate(rw::cpu::make_rerotation_plan(rw::kind_of<L>, moved.tensor(), moved.tensor(), before,
                                                        rw::offset{7}, e, rw::offset{300}),
                          heads);
                rw::cpu::rotate<L>(q_alone.view<T>(), e, rw::offset{300});
                rw::cpu::rotate<L>(rw::view<T>{}, k_alone.view<T>(), e, rw::offset{300});
                rw::cpu::rerotate<L>(moved_alone.view<T>(), before, rw::offset{7}, e, rw::offset{300});
                INFO("batch " << batch << ", tokens " << tokens << ", " << heads << " heads at a time");
                CHECK(q == q_alone);
                CHECK(k == k_alone);
                CHECK(moved == moved_alone);
            }
        }
    }
}

TEST_CASE("the cos_sin rows of the heads_major loop fit the second-level cache", "[cpu]") {
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

TEST_CASE("functions of the headers refuse invalid arguments before they write", "[cpu]") {
    SEEDED(numbers);
    const rw::Encoding e = rw::make_encoding(rw::Geometry{.head_dim = 100, .layout = rw::layout_kind::half_split});
    test::array q(rw::element_type::f32, {2, 9, 4, 100}, numbers), k(rw::element_type::f32, {1, 9, 2, 100}, numbers);
    const test::array q_before = q, k_before = k;
    CHECK_REFUSED(rw::cpu::rotate<rw::half_split>(q.view<float>(), k.view<float>(), e, rw::offset{0}), "batch 2",
                  "batch 1");
    CHECK_REFUSED(rw::cpu::rotate<rw::interleaved>(q.view<float>(), e, rw::offset{0}), "half_split", "interleaved");
    CHECK_REFUSED(rw::cpu::rerotate<rw::interleaved>(q.view<float>(), e, rw::offset{0}, e, rw::offset{1}), "half_split",
                  "interleaved");
    CHECK(q == q_before);
    CHECK(k == k_before);
}
