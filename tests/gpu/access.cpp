#include <ropewalk/core/divide.hpp>
#include <ropewalk/gpu/access.hpp>
#include <ropewalk/gpu/chunks.hpp>

#include <cmath>
#include <set>
#include <vector>

#include "support/catch.hpp"
#include "support/random.hpp"
#include "support/tensors.hpp"

namespace rw = ropewalk;

namespace {

template <class T, int Bytes>
void check_vec(test::random& numbers) {
    using vec = rw::gpu::vec<T, Bytes>;
    const oracle::format& f = test::format_of(rw::type_of<T>);
    alignas(16) T memory[vec::count];
    double expected[vec::count];
    for (int i = 0; i < vec::count; ++i) {
        expected[i] = oracle::rounded(numbers.normal(), f);
        const std::uint32_t bits = oracle::encode(expected[i], f);
        std::memcpy(static_cast<void*>(&memory[i]), &bits, sizeof(T));
    }
    vec x = vec::widen(rw::gpu::plain_access::load<Bytes>(memory));
    for (int i = 0; i < vec::count; ++i) CHECK(static_cast<double>(x.value[i]) == expected[i]);

    for (int i = 0; i < vec::count; ++i) {
        x.value[i] = static_cast<float>(numbers.normal());
        expected[i] = oracle::rounded(static_cast<double>(x.value[i]), f);
    }
    rw::gpu::plain_access::store<Bytes>(memory, x.narrow());
    for (int i = 0; i < vec::count; ++i) CHECK(static_cast<double>(static_cast<float>(memory[i])) == expected[i]);
}

/// Checks that every rotary element is in one chunk, and both elements of a pair in the same.
template <class L, int V>
void check_chunks(std::int64_t pairs) {
    using chunks = rw::gpu::chunks<L, V>;
    std::set<std::int64_t> elements, numbers;
    for (std::int64_t at = 0; at < pairs / V; ++at) {
        const std::int64_t first = chunks::first(at, pairs), second = chunks::second(at, pairs);
        if (V > 1) CHECK((first % V == 0 && second % V == 0));
        float a[V], b[V];
        for (int i = 0; i < V; ++i) {
            elements.insert(first + i), elements.insert(second + i);
            a[i] = static_cast<float>(first + i), b[i] = static_cast<float>(second + i);
        }
        // A quarter turn maps (x, y) to (−y, x), so that each element shows its partner.
        rw::gpu::cos_sin_values<V> quarter;
        for (int i = 0; i < V; ++i) {
            numbers.insert(chunks::pair(at, i, pairs));
            quarter.cos[i] = 0, quarter.sin[i] = static_cast<float>(chunks::pair(at, i, pairs) + 1);
        }
        chunks::rotate(a, b, quarter);
        const auto check = [&](std::int64_t element, float turned) {
            for (std::int64_t pair = 0; pair < pairs; ++pair) {
                const std::int64_t x = L::first(pair, pairs), y = L::second(pair, pairs);
                if (element == x) CHECK(turned == -static_cast<float>(y * (pair + 1)));
                if (element == y) CHECK(turned == static_cast<float>(x * (pair + 1)));
            }
        };
        for (int i = 0; i < V; ++i) check(first + i, a[i]), check(second + i, b[i]);
    }
    CHECK(elements.size() == static_cast<std::size_t>(2 * pairs));
    CHECK(*elements.rbegin() == 2 * pairs - 1);
    CHECK(numbers.size() == static_cast<std::size_t>(pairs));
    CHECK(*numbers.rbegin() == pairs - 1);
}

/// Checks that all 256 bytes of a cache type widen to their values.
template <class E>
void check_bytes(double (*value_of)(int)) {
    for (int code = 0; code < 256; ++code) {
        const auto byte = static_cast<std::uint32_t>(code);
        float x[4];
        rw::gpu::detail::widen_bytes(E{}, byte | (byte ^ 1U) << 8 | (byte ^ 2U) << 16 | (byte ^ 3U) << 24, x);
        for (int i = 0; i < 4; ++i) {
            const double expected = value_of(code ^ i);
            CAPTURE(code, i, expected);
            CHECK((static_cast<double>(x[i]) == expected || (std::isnan(x[i]) && std::isnan(expected))));
        }
    }
}

}  // namespace

TEST_CASE("lines of every type and width hold their elements and round them once", "[gpu]") {
    SEEDED(numbers);
    for (int i = 0; i < 50; ++i) {
        check_vec<float, 4>(numbers), check_vec<float, 8>(numbers), check_vec<float, 16>(numbers);
        check_vec<rw::f16, 2>(numbers), check_vec<rw::f16, 4>(numbers), check_vec<rw::f16, 8>(numbers);
        check_vec<rw::f16, 16>(numbers);
        check_vec<rw::bf16, 2>(numbers), check_vec<rw::bf16, 4>(numbers), check_vec<rw::bf16, 8>(numbers);
        check_vec<rw::bf16, 16>(numbers);
    }
}

TEMPLATE_TEST_CASE("chunks part a head into all of its pairs", "[gpu]", rw::half_split, rw::interleaved) {
    check_chunks<TestType, 1>(1), check_chunks<TestType, 1>(3), check_chunks<TestType, 1>(10);
    check_chunks<TestType, 2>(2), check_chunks<TestType, 2>(10);
    check_chunks<TestType, 4>(12), check_chunks<TestType, 4>(64);
    check_chunks<TestType, 8>(8), check_chunks<TestType, 8>(40), check_chunks<TestType, 8>(64);
}

TEST_CASE("a division is the same in 32 bits and in 64", "[gpu]") {
    SEEDED(numbers);
    for (int i = 0; i < 10000; ++i) {
        const auto n = static_cast<std::int64_t>(numbers.logarithmic(1, 9e18)) - 1;
        const auto d = static_cast<std::int64_t>(numbers.logarithmic(1, 1e12));
        const auto [whole, rest] = rw::detail::divide(n, d);
        REQUIRE(whole == n / d);
        REQUIRE(rest == n % d);
    }
}

TEST_CASE("bytes of a cache widen to their values") {
    // OCP E4M3: 2^(e−7) · 1.mmm, or 2^-6 · 0.mmm where e is 0; the last code is a NaN.
    check_bytes<rw::f8e4m3>([](int code) {
        const int exponent = code / 8 % 16, mantissa = code % 8;
        const double sign = code < 128 ? 1 : -1;
        if (exponent == 15 && mantissa == 7) return std::nan("");
        return sign * (exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10));
    });
    // OCP E5M2: 2^(e−15) · 1.mm, or 2^-14 · 0.mm where e is 0; the last exponent has infinities and NaNs.
    check_bytes<rw::f8e5m2>([](int code) {
        const int exponent = code / 4 % 32, mantissa = code % 4;
        const double sign = code < 128 ? 1 : -1;
        if (exponent == 31) return mantissa == 0 ? sign * HUGE_VAL : std::nan("");
        return sign * (exponent == 0 ? std::ldexp(mantissa, -16) : std::ldexp(4 + mantissa, exponent - 17));
    });
    check_bytes<std::int8_t>([](int code) { return static_cast<double>(code < 128 ? code : code - 256); });
}
