#include <ropewalk/core/overlap.hpp>

#include <algorithm>
#include <set>
#include <vector>

#include "support/catch.hpp"
#include "support/effort.hpp"
#include "support/random.hpp"

namespace rw = ropewalk;
namespace detail = ropewalk::detail;

namespace {

constexpr std::int64_t arena = 1 << 16;
std::vector<float> memory(arena);

/// Returns the distinct addresses of the elements.
std::set<std::int64_t> elements_of(const rw::tensor& t) {
    std::set<std::int64_t> result;
    const std::int64_t start = static_cast<float*>(t.data) - memory.data();
    for (std::int64_t b = 0; b < t.batch; ++b) {
        for (std::int64_t s = 0; s < t.tokens; ++s) {
            for (std::int64_t h = 0; h < t.heads; ++h) {
                for (std::int64_t i = 0; i < t.head_dim; ++i) {
                    result.insert(start + b * t.stride_batch + s * t.stride_token + h * t.stride_head + i);
                }
            }
        }
    }
    return result;
}

bool intersect(const std::set<std::int64_t>& a, const std::set<std::int64_t>& b) {
    return std::any_of(a.begin(), a.end(), [&](std::int64_t address) { return b.contains(address); });
}

rw::tensor random_tensor(test::random& numbers) {
    rw::tensor t;
    t.batch = numbers.integer(1, 3), t.tokens = numbers.integer(1, 3), t.heads = numbers.integer(1, 3);
    t.head_dim = 2 * numbers.integer(1, 2);
    t.stride_batch = numbers.integer(-24, 24), t.stride_token = numbers.integer(-24, 24),
    t.stride_head = numbers.integer(-24, 24);
    t.data = memory.data() + arena / 2 + numbers.integer(-40, 40);
    return t;
}

rw::tensor slice(std::int64_t start, std::int64_t heads, std::int64_t tokens, std::int64_t stride_head,
                 std::int64_t stride_token) {
    rw::tensor t;
    t.data = memory.data() + start;
    t.tokens = tokens, t.heads = heads, t.head_dim = 4, t.stride_head = stride_head, t.stride_token = stride_token;
    return t;
}

}  // namespace

TEST_CASE("overlapping_axis finds every tensor that shares memory with itself", "[overlap]") {
    SEEDED(numbers);
    std::int64_t missed = 0, distinct = 0, false_alarms = 0;
    for (std::int64_t i = 0; i < test::cases(100000); ++i) {
        const rw::tensor t = random_tensor(numbers);
        const bool folded = elements_of(t).size() != static_cast<std::size_t>(t.elements());
        missed += folded && detail::overlapping_axis(t) == nullptr;
        distinct += !folded;
        false_alarms += !folded && detail::overlapping_axis(t) != nullptr;
    }
    CHECK(missed == 0);
    // Interlocked axes can cause a false alarm, which is rare even among random strides.
    CHECK(false_alarms * 4 < distinct);
}

TEST_CASE("overlapping_axis accepts every order of the axes, padded or not", "[overlap]") {
    SEEDED(numbers);
    for (int i = 0; i < 2000; ++i) {
        rw::tensor t = random_tensor(numbers);
        std::array<std::pair<std::int64_t, std::int64_t*>, 3> axes{std::pair{t.batch, &t.stride_batch},
                                                                   std::pair{t.tokens, &t.stride_token},
                                                                   std::pair{t.heads, &t.stride_head}};
        const auto first = static_cast<std::size_t>(numbers.integer(0, 2));
        std::swap(axes[0], axes[first]);
        if (numbers.coin()) std::swap(axes[1], axes[2]);
        std::int64_t stride = t.head_dim;
        for (const auto& [extent, target] : axes) {
            stride += numbers.integer(0, 3);
            *target = numbers.coin() ? stride : -stride;
            stride *= extent;
        }
        REQUIRE(detail::overlapping_axis(t) == nullptr);
    }
}

TEST_CASE("overlapping_axis names the axis", "[overlap]") {
    CHECK(std::string(detail::overlapping_axis(slice(0, 2, 2, 0, 8))) == "head");
    CHECK(std::string(detail::overlapping_axis(slice(0, 2, 2, 4, 0))) == "token");
    CHECK(std::string(detail::overlapping_axis(slice(0, 2, 2, 4, 6))) == "token");
    CHECK(detail::overlapping_axis(slice(0, 1, 2, 0, 4)) == nullptr);
}

TEST_CASE("may_overlap never misses shared memory", "[overlap]") {
    SEEDED(numbers);
    std::int64_t missed = 0;
    for (std::int64_t i = 0; i < test::cases(100000); ++i) {
        const rw::tensor a = random_tensor(numbers);
        rw::tensor b = random_tensor(numbers);
        if (numbers.coin()) {
            b = a;
            b.data = static_cast<float*>(a.data) + numbers.integer(-20, 20);
        }
        const bool shared = intersect(elements_of(a), elements_of(b));
        missed += shared && !(detail::may_overlap(a, b) && detail::may_overlap(b, a));
    }
    CHECK(missed == 0);
}

TEST_CASE("may_overlap accepts slices of one packed tensor", "[overlap]") {
    // [tokens, q and k and v heads, head_dim]
    const rw::tensor q = slice(0, 4, 5, 4, 32), k = slice(16, 2, 5, 4, 32), v = slice(24, 2, 5, 4, 32);
    CHECK_FALSE(detail::may_overlap(q, k));
    CHECK_FALSE(detail::may_overlap(k, v));
    CHECK_FALSE(detail::may_overlap(v, q));
    CHECK(detail::may_overlap(q, slice(12, 2, 5, 4, 32)));
    // [heads, q or k, tokens, head_dim]
    CHECK_FALSE(detail::may_overlap(slice(0, 3, 5, 40, 4), slice(20, 3, 5, 40, 4)));
    // Adjacent tensors, one element less than adjacent, no tensor, and no elements.
    CHECK_FALSE(detail::may_overlap(slice(0, 2, 2, 4, 8), slice(16, 2, 2, 4, 8)));
    CHECK(detail::may_overlap(slice(0, 2, 2, 4, 8), slice(15, 2, 2, 4, 8)));
    CHECK_FALSE(detail::may_overlap(slice(0, 2, 2, 4, 8), rw::tensor{}));
    CHECK_FALSE(detail::may_overlap(slice(0, 0, 2, 4, 8), slice(0, 2, 2, 4, 8)));
}

TEST_CASE("may_overlap is conservative for mixed and misaligned element types", "[overlap]") {
    rw::tensor a = slice(0, 2, 4, 4, 16), b = slice(8, 2, 4, 4, 16);
    CHECK_FALSE(detail::may_overlap(a, b));
    b.type = rw::element_type::f16;
    CHECK(detail::may_overlap(a, b));
    b = slice(8, 2, 4, 4, 16);
    b.data = static_cast<char*>(b.data) + 2;
    CHECK(detail::may_overlap(a, b));
}
