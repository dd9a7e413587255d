// Fused calls by the header path: append() and norm_rotate() against their parts.
#include <ropewalk/cpu/fused.hpp>

#include <cmath>
#include <vector>

#include <ropewalk/cpu/rotate.hpp>

#include "support/catch.hpp"

namespace rw = ropewalk;

namespace {

constexpr std::int64_t tokens = 5, heads = 3, dim = 80;

template <class T>
std::vector<T> values_of(int first) {
    std::vector<T> values;
    for (int i = 0; i < tokens * heads * dim; ++i)
        values.push_back(T(std::sin(static_cast<float>(first + i) * 0.37F) * 3));
    return values;
}

template <class T>
std::vector<float> floats_of(const std::vector<T>& values) {
    return std::vector<float>(values.begin(), values.end());
}

}  // namespace

TEMPLATE_TEST_CASE("append() stores rotated keys and unchanged values, in any layout", "[fused]", float, rw::f16,
                   rw::bf16) {
    using T = TestType;
    const auto encoding = rw::make_encoding({.head_dim = dim, .rotary_dim = 64}, rw::Default{});
    std::vector<T> q = values_of<T>(0), k = values_of<T>(1), k_cache(k.size()), v_cache(k.size());
    const std::vector<T> v = values_of<T>(2), q_before = q, k_before = k;
    const auto view = [](auto& x) { return rw::thd(x, tokens, heads, dim); };
    const auto check = [&]<class L>(L) {
        q = q_before;
        rw::cpu::append<L>(view(q), view(k), view(v),
                           {rw::nhd_cache(k_cache.data(), 1, tokens, heads, dim),
                            rw::nhd_cache(v_cache.data(), 1, tokens, heads, dim)},
                           rw::by_sequence(rw::offset{0}), encoding, rw::offset{100});
        CHECK(floats_of(k) == floats_of(k_before));
        CHECK(floats_of(v_cache) == floats_of(v));
        std::vector<T> q_parts = q_before, k_parts = k;
        rw::cpu::rotate<L>(view(q_parts), view(k_parts), encoding, rw::offset{100});
        CHECK(floats_of(q) == floats_of(q_parts));
        CHECK(floats_of(k_cache) == floats_of(k_parts));
    };
    check(rw::half_split{}), check(rw::interleaved{});
}

TEST_CASE("a prepared call of the headers gives the bits of fused()", "[fused]") {
    const auto encoding = rw::make_encoding({.head_dim = dim}, rw::Default{});
    std::vector<rw::bf16> q = values_of<rw::bf16>(0), k = values_of<rw::bf16>(1), v = values_of<rw::bf16>(2);
    std::vector<rw::bf16> q_again = q, k_cache(k.size()), v_cache(k.size()), k_again(k.size()), v_again(k.size());
    const auto view = [](auto& x) { return rw::thd(x, tokens, heads, dim); };
    const auto cache = [](auto& x) { return rw::nhd_cache(x.data(), 1, tokens, heads, dim); };
    rw::cpu::append<rw::interleaved>(view(q), view(k), view(v), {cache(k_cache), cache(v_cache)},
                                     rw::by_sequence(rw::offset{0}), encoding, rw::offset{9});
    const rw::fusion with{.cache = {cache(k_cache), cache(v_cache)}};
    auto prepared = rw::cpu::prepare_fused<rw::interleaved, rw::bf16>({view(q_again), view(k), view(v)},
                                                                      {view(q_again), {}, {}}, with, encoding);
    const std::vector<std::int64_t> positions{9, 10, 11, 12, 13}, slots{0, 1, 2, 3, 4};
    CHECK(prepared.run({.q = {.in = q_again.data()},
                        .k = {.in = k.data(), .cache = k_again.data()},
                        .v = {.in = v.data(), .cache = v_again.data()}},
                       positions, slots));
    CHECK(floats_of(q_again) == floats_of(q));
    CHECK(floats_of(k_again) == floats_of(k_cache));
    CHECK(floats_of(v_again) == floats_of(v_cache));
}

TEST_CASE("norm_rotate() norms, then rotates", "[fused]") {
    const auto encoding = rw::make_encoding({.head_dim = dim}, rw::Default{});
    std::vector<float> q = values_of<float>(0), k = values_of<float>(1), parts = q, weights(dim);
    for (std::size_t i = 0; i < weights.size(); ++i) weights[i] = 0.5F + static_cast<float>(i) / 100;
    const auto view = [](auto& x) { return rw::thd(x, tokens, heads, dim); };
    rw::cpu::norm_rotate<rw::interleaved>(view(q), view(k), rw::head_norm(weights.data(), 1e-5),
                                          rw::head_norm(weights.data(), 1e-5, true), encoding, rw::offset{7});
    for (std::size_t head = 0; head < parts.size(); head += dim) {
        double squares = 0;
        for (std::size_t i = 0; i < dim; ++i) squares += std::pow(static_cast<double>(parts[head + i]), 2);
        const double factor = 1 / std::sqrt(squares / dim + 1e-5);
        for (std::size_t i = 0; i < dim; ++i)
            parts[head + i] = static_cast<float>(parts[head + i] * factor * static_cast<double>(weights[i]));
    }
    rw::cpu::rotate<rw::interleaved>(view(parts), encoding, rw::offset{7});
    for (std::size_t i = 0; i < parts.size(); ++i) CHECK(std::abs(q[i] - parts[i]) < 4e-6F);
}
