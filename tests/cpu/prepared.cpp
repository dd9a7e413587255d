// Prepared rotations, compared with cpu::rotate(), which the other tests compare with the oracle.
#include <ropewalk/cpu/prepared.hpp>
#include <ropewalk/cpu/rotate.hpp>

#include <limits>

#include "cases/rotation_case.hpp"
#include "cpu/typed.hpp"
#include "support/errors.hpp"

namespace rw = ropewalk;

using test::bf16_half_split;
using test::f16_interleaved;
using test::f32_half_split;
using test::f64_interleaved;

namespace {

template <class T>
T* data_of(test::array& x) {
    return static_cast<T*>(x.tensor().data);
}

}  // namespace

TEMPLATE_TEST_CASE("a prepared rotation gives the bits of rotate()", "[prepared]", f32_half_split, f16_interleaved,
                   bf16_half_split, f64_interleaved) {
    using T = typename TestType::type;
    using L = typename TestType::layout;
    SEEDED(numbers);
    for (const char* const policy : {"linear:4", "xpos:512,length=4096", "yarn:8,original_length=4096"}) {
        const rw::Encoding e = rw::make_encoding(test::partial_head, policy);
        for (const test::order axes : test::all_orders) {
            for (const auto& [batch, tokens] : {std::pair{1, 1}, {3, 1}, {2, 5}}) {
                for (const rw::direction direction : {rw::direction::forward, rw::direction::inverse}) {
                    test::array q(rw::type_of<T>, {batch, tokens, 6, 100}, numbers, axes);
                    test::array k(rw::type_of<T>, {batch, tokens, 2, 100}, numbers, axes);
                    test::array q_twin = q, k_twin = k;
                    const rw::cpu::options options{.direction = direction};
                    auto prepared = rw::cpu::prepare<L>(q.view<T>(), k.view<T>(), e, options);
                    // The second call of each position reuses its cosines and sines.
                    for (const std::int64_t position : {70, 70, 0, -3, 70}) {
                        REQUIRE(prepared.run(data_of<T>(q), data_of<T>(k), position));
                        rw::cpu::rotate<L>(q_twin.view<T>(), k_twin.view<T>(), e, rw::offset{position}, options);
                    }
                    std::vector<std::int64_t> ids(static_cast<std::size_t>(batch * tokens));
                    for (auto& id : ids) id = numbers.integer(-40, 400);
                    for (int i = 0; i < 2; ++i) {
                        REQUIRE(prepared.run(data_of<T>(q), data_of<T>(k), ids));
                        rw::cpu::rotate<L>(q_twin.view<T>(), k_twin.view<T>(), e, rw::ids(ids, batch), options);
                    }
                    INFO(policy << ", batch " << batch << ", tokens " << tokens);
                    CHECK(q == q_twin);
                    CHECK(k == k_twin);
                }
            }
        }
    }
}

TEMPLATE_TEST_CASE("a prepared rotation writes to other memory and copies the rest of the heads", "[prepared]",
                   f32_half_split, f16_interleaved, bf16_half_split, f64_interleaved) {
    using T = typename TestType::type;
    using L = typename TestType::layout;
    SEEDED(numbers);
    const rw::Encoding e = rw::make_encoding(test::partial_head);
    test::array q(rw::type_of<T>, {2, 3, 4, 100}, numbers), k(rw::type_of<T>, {2, 3, 1, 100}, numbers);
    const test::array q_before = q;
    test::array q_out(rw::type_of<T>, q.size(), test::order::bhsd),
        k_out(rw::type_of<T>, k.size(), test::order::padded);
    test::array q_twin = q_out, k_twin = k_out;
    auto prepared = rw::cpu::prepare<L>(rw::view<const T>(q.view<T>()), rw::view<const T>(k.view<T>()), q_out.view<T>(),
                                        k_out.view<T>(), e);
    REQUIRE(prepared.run(data_of<T>(q), data_of<T>(k), data_of<T>(q_out), data_of<T>(k_out), 9));
    rw::cpu::rotate<L>(rw::view<const T>(q.view<T>()), rw::view<const T>(k.view<T>()), q_twin.view<T>(),
                       k_twin.view<T>(), e, rw::offset{9});
    CHECK(q_out == q_twin);
    CHECK(k_out == k_twin);
    CHECK(q == q_before);

    auto alone = rw::cpu::prepare<L>(q.view<T>(), e);
    test::array twin = q;
    REQUIRE(alone.run(data_of<T>(q), nullptr, 9));
    rw::cpu::rotate<L>(twin.view<T>(), e, rw::offset{9});
    CHECK(q == twin);
}

TEST_CASE("a prepared rotation reads the caller's table within its rows", "[prepared]") {
    SEEDED(numbers);
    const rw::Encoding e = rw::make_encoding(rw::Geometry{.head_dim = 32});
    std::vector<float> cos(50 * 16), sin(50 * 16);
    for (auto& value : cos) value = static_cast<float>(numbers.normal());
    for (auto& value : sin) value = static_cast<float>(numbers.normal());
    const rw::cpu::options options{
        .table = {.cos = cos.data(), .sin = sin.data(), .rows = 50, .columns = 16, .stride_row = 16}};
    test::array q(rw::element_type::f32, {1, 2, 3, 32}, numbers), twin = q;
    auto prepared = rw::cpu::prepare<rw::interleaved>(q.view<float>(), e, options);
    CHECK(prepared.first_position() == 0);
    CHECK(prepared.last_position() == 49);
    REQUIRE(prepared.run(data_of<float>(q), nullptr, 48));
    rw::cpu::rotate<rw::interleaved>(twin.view<float>(), e, rw::offset{48}, options);
    CHECK(q == twin);
    for (const std::int64_t position : {-1, 49, 50}) CHECK_FALSE(prepared.run(data_of<float>(q), nullptr, position));
    CHECK_FALSE(prepared.run(data_of<float>(q), nullptr, std::vector<std::int64_t>{0, 50}));
    CHECK(q == twin);
}

TEST_CASE("run() returns false and writes nothing where addresses or positions do not fit", "[prepared]") {
    SEEDED(numbers);
    const rw::Encoding e = rw::make_encoding(rw::Geometry{.head_dim = 8}, "xpos:512,length=4096");
    test::array q(rw::element_type::f32, {2, 1, 4, 8}, numbers), k(rw::element_type::f32, {2, 1, 2, 8}, numbers);
    const test::array q_before = q, k_before = k;
    float* const at_q = data_of<float>(q);
    float* const at_k = data_of<float>(k);
    auto prepared = rw::cpu::prepare<rw::half_split>(q.view<float>(), k.view<float>(), e);
    const auto misaligned = reinterpret_cast<float*>(reinterpret_cast<char*>(at_q) + 2);
    CHECK_FALSE(prepared.run(nullptr, at_k, 0));
    CHECK_FALSE(prepared.run(at_q, nullptr, 0));
    CHECK_FALSE(prepared.run(misaligned, at_k, 0));
    CHECK_FALSE(prepared.run(at_q, at_k, std::vector<std::int64_t>{1}));
    CHECK_FALSE(prepared.run(at_q, at_k, prepared.last_position() + 1));
    CHECK_FALSE(prepared.run(at_q, at_k, prepared.first_position() - 1));
    CHECK_FALSE(prepared.run(at_q, at_k, std::numeric_limits<std::int64_t>::max()));
    CHECK_FALSE(rw::cpu::prepare<rw::half_split>(q.view<float>(), e).run(at_q, at_k, 0));
    CHECK(q == q_before);
    CHECK(k == k_before);
    static_assert(noexcept(prepared.run(at_q, at_k, 0)));
}

TEST_CASE("a prepared rotation without elements returns at once for any number of batch rows", "[prepared]") {
    float q = 1;
    const rw::Encoding e = rw::make_encoding(rw::Geometry{.head_dim = 8});
    rw::view<float> nothing(&q, 3, 0, 8);
    nothing.batch = std::int64_t{1} << 60;
    auto prepared = rw::cpu::prepare<rw::half_split>(nothing, e);
    CHECK(prepared.run(&q, nullptr, 5));
    CHECK(q == 1);
}

TEST_CASE("the preparation of a rotation refuses what rotate() refuses", "[prepared]") {
    SEEDED(numbers);
    const rw::Encoding e = rw::make_encoding(rw::Geometry{.head_dim = 8, .layout = rw::layout_kind::half_split});
    test::array q(rw::element_type::f32, {1, 4, 3, 8}, numbers), k(rw::element_type::f32, {1, 4, 2, 8}, numbers);
    CHECK_REFUSED(rw::cpu::prepare<rw::half_split>(q.view<float>(), k.view<float>(), e), "multiple", "3", "2");
    CHECK_REFUSED(rw::cpu::prepare<rw::interleaved>(q.view<float>(), e), "half_split", "interleaved");
    CHECK_REFUSED(rw::cpu::prepare<rw::half_split>(q.view<float>(), e, {.threads = -1}), "threads", "-1");
    const rw::Encoding drawn = rw::make_encoding(rw::Geometry{.head_dim = 8}, "randomized:64");
    CHECK_REFUSED(rw::cpu::prepare<rw::half_split>(q.view<float>(), drawn), "randomized", "draws its positions");
    const float one[4] = {1, 1, 1, 1};
    const rw::cos_sin_table table{.cos = one,
                                  .sin = one,
                                  .rows = 4,
                                  .columns = 4,
                                  .stride_row = 0,
                                  .order = rw::cos_sin_table::rows_are::by_token};
    CHECK_REFUSED(rw::cpu::prepare<rw::half_split>(q.view<float>(), e, {.table = table}), "one row per index");
}

TEMPLATE_TEST_CASE("the alignment of the memory does not change a bit", "[prepared]", f32_half_split, f16_interleaved,
                   bf16_half_split) {
    using T = typename TestType::type;
    using L = typename TestType::layout;
    SEEDED(numbers);
    for (const std::int64_t dim : {128, 96, 80, 20, 8}) {
        const rw::Encoding e = rw::make_encoding(rw::Geometry{.head_dim = dim});
        for (const std::int64_t heads : {1, 5}) {
            const test::array start(rw::type_of<T>, {1, 2, heads, dim}, numbers);
            std::vector<double> expected;
            for (const std::int64_t shift : {0, 1, 2, 4, 8, 12, 16, 31}) {
                test::array x(rw::type_of<T>, start.size(), test::order::bshd, shift);
                x.set(start.values());
                rw::cpu::rotate<L>(x.view<T>(), e, rw::offset{77});
                if (shift == 0) expected = x.values();
                INFO("head_dim " << dim << ", heads " << heads << ", shift " << shift);
                CHECK((x.values() == expected));
                CHECK(x.guards_intact());
            }
        }
    }
}
