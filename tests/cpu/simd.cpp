// SIMD primitives: cosines, powers, loads, stores and shuffles.
#include <ropewalk/core/sincos.hpp>
#include <ropewalk/cpu/simd/load_store.hpp>

#include <array>
#include <bit>
#include <cmath>
#include <vector>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include "support/catch.hpp"
#include "support/effort.hpp"
#include "support/random.hpp"
#include "support/rounding.hpp"

namespace rw = ropewalk;
namespace detail = ropewalk::cpu::detail;

namespace {

using arch = rw::cpu::native_arch;
constexpr auto lanes = static_cast<std::size_t>(detail::lane_count<arch>);
using float_lanes = std::array<float, lanes>;
using word_lanes = std::array<std::uint32_t, lanes>;

word_lanes random_words(test::random& numbers) {
    word_lanes result;
    for (auto& word : result) word = static_cast<std::uint32_t>(numbers.bits());
    return result;
}
detail::words<arch> load(const word_lanes& values) { return detail::words<arch>::load_unaligned(values.data()); }
float_lanes store(const detail::floats<arch>& value) {
    float_lanes result;
    value.store_unaligned(result.data());
    return result;
}
// The control register of floating-point arithmetic.
#if defined(__x86_64__)
constexpr unsigned int flush_subnormals = 0x8040U;  // FTZ and DAZ
unsigned int float_mode() { return _mm_getcsr(); }
void set_float_mode(unsigned int mode) { _mm_setcsr(mode); }
#elif defined(__aarch64__)
constexpr std::uint64_t flush_subnormals = 1U << 24;  // FZ
std::uint64_t float_mode() {
    std::uint64_t mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
}
void set_float_mode(std::uint64_t mode) { __asm__ volatile("msr fpcr, %0" : : "r"(mode) : "memory"); }
#endif

double distance(float a, float b) { return std::fabs(static_cast<double>(a) - static_cast<double>(b)); }

/// Floats on and next to the midpoints of 16-bit numbers, with NaNs and infinities.
float border(test::random& numbers) {
    const auto kept = static_cast<std::uint32_t>(numbers.bits());
    const std::uint32_t cut = numbers.one_of({0x8000U, 0x7fffU, 0x8001U, 0U, 0x1000U, 0x0fffU, 0x1001U, 0x3000U});
    return std::bit_cast<float>((kept & 0xffff0000U) | cut);
}

bool same_half(std::uint16_t got, float value, const oracle::format& f) {
    if (std::isnan(value)) return std::isnan(oracle::decode(got, f));
    return got == oracle::encode(oracle::rounded(static_cast<double>(value), f), f);
}

}  // namespace

TEST_CASE("cosines and sines of a register of phases", "[simd]") {
    SEEDED(numbers);
    double worst = 0;
    for (std::int64_t i = 0; i < test::cases(100000); ++i) {
        const word_lanes phases = random_words(numbers);
        const auto both = rw::cos_sin<detail::floats<arch>>(load(phases));
        const float_lanes cos = store(both.cos), sin = store(both.sin);
        for (std::size_t k = 0; k < lanes; ++k) {
            const double angle = static_cast<double>(static_cast<std::int32_t>(phases[k])) * 0x1p-32 * 2 * M_PI;
            worst = std::max({worst, std::fabs(static_cast<double>(cos[k]) - std::cos(angle)),
                              std::fabs(static_cast<double>(sin[k]) - std::sin(angle))});
        }
    }
    CHECK(worst <= 9.6e-8);
}

TEST_CASE("powers of a register of exponents", "[simd]") {
    SEEDED(numbers);
    double worst = 0;
    for (std::int64_t i = 0; i < test::cases(50000); ++i) {
        word_lanes exponents;
        for (auto& exponent : exponents)
            exponent = static_cast<std::uint32_t>(static_cast<std::int32_t>(numbers.uniform(-126, 126) * 0x1p24));
        const float_lanes got = store(rw::exp2_fixed<detail::floats<arch>>(load(exponents)));
        for (std::size_t k = 0; k < lanes; ++k) {
            const double exact = std::exp2(static_cast<double>(static_cast<std::int32_t>(exponents[k])) * 0x1p-24);
            worst = std::max(worst, std::fabs(static_cast<double>(got[k]) / exact - 1));
        }
    }
    CHECK(worst <= 1.3e-7);
}

TEMPLATE_TEST_CASE("registers store 16-bit elements as the oracle rounds them, including NaNs", "[simd]", rw::f16,
                   rw::bf16) {
    SEEDED(numbers);
    const oracle::format& f = rw::type_of<TestType> == rw::element_type::f16 ? oracle::f16 : oracle::bf16;
    std::int64_t wrong = 0;
    for (std::int64_t i = 0; i < test::cases(200000); ++i) {
        float_lanes values;
        for (auto& value : values) value = border(numbers);
        std::array<TestType, lanes + 1> target{};
        detail::store_elements<arch>(target.data(), detail::floats<arch>::load_unaligned(values.data()));
        for (std::size_t k = 0; k < lanes; ++k) wrong += !same_half(target[k].bits, values[k], f);
        wrong += target[lanes].bits != 0;
    }
    CHECK(wrong == 0);
}

TEMPLATE_TEST_CASE("registers load all 65536 16-bit elements", "[simd]", rw::f16, rw::bf16) {
    int wrong = 0;
    for (std::uint32_t start = 0; start < 65536; start += static_cast<std::uint32_t>(lanes)) {
        std::array<TestType, lanes> source;
        for (std::size_t k = 0; k < lanes; ++k) source[k].bits = static_cast<std::uint16_t>(start + k);
        const float_lanes got = store(detail::load_elements<arch>(source.data()));
        for (std::size_t k = 0; k < lanes; ++k) {
            const auto exact = static_cast<float>(source[k]);
            wrong += std::isnan(exact) ? !std::isnan(got[k]) : got[k] != exact;
        }
    }
    CHECK(wrong == 0);
}

#if defined(__x86_64__) || defined(__aarch64__)
TEST_CASE("subnormal f16 elements survive where the thread flushes subnormal floats", "[simd]") {
    const auto usual = float_mode();
    const auto flushing = usual | flush_subnormals;
    for (std::uint32_t start = 0; start < 1024; start += static_cast<std::uint32_t>(lanes)) {
        std::array<rw::f16, lanes> source;
        for (std::size_t k = 0; k < lanes; ++k) source[k].bits = static_cast<std::uint16_t>(start + k);
        set_float_mode(flushing);
        const float_lanes got = store(detail::load_elements<arch>(source.data()));
        std::array<rw::f16, lanes> back;
        detail::store_elements<arch>(back.data(), detail::floats<arch>::load_unaligned(got.data()));
        set_float_mode(usual);
        for (std::size_t k = 0; k < lanes; ++k) {
            CHECK(got[k] == static_cast<float>(start + k) * 0x1p-24F);
            CHECK(back[k].bits == source[k].bits);
        }
    }
}
#endif

TEST_CASE("bf16 pairs are stored like single elements", "[simd]") {
    SEEDED(numbers);
    std::int64_t wrong = 0;
    for (std::int64_t i = 0; i < test::cases(200000); ++i) {
        float_lanes even, odd;
        for (std::size_t k = 0; k < lanes; ++k) {
            even[k] = border(numbers), odd[k] = border(numbers);
            // Arithmetic on widened bf16 yields quiet NaNs with a lower half of zeros.
            if (std::isnan(even[k]))
                even[k] = numbers.coin() ? std::bit_cast<float>(0xffff0000U) : std::bit_cast<float>(0x7fc00000U);
            if (std::isnan(odd[k]))
                odd[k] = numbers.coin() ? std::bit_cast<float>(0x7fff0000U) : std::bit_cast<float>(0xffc00000U);
        }
        std::array<rw::bf16, 2 * lanes> target;
        detail::store_bf16<arch>(target.data(), detail::floats<arch>::load_unaligned(even.data()),
                                 detail::floats<arch>::load_unaligned(odd.data()));
        for (std::size_t k = 0; k < lanes; ++k) {
            wrong += !same_half(target[2 * k].bits, even[k], oracle::bf16);
            wrong += !same_half(target[2 * k + 1].bits, odd[k], oracle::bf16);
        }
    }
    CHECK(wrong == 0);
}

TEST_CASE("64-bit products wrap in each lane", "[simd]") {
    SEEDED(numbers);
    std::int64_t wrong = 0;
    for (std::int64_t i = 0; i < test::cases(100000); ++i) {
        std::array<std::uint64_t, lanes / 2> a, b, got;
        for (std::size_t k = 0; k < a.size(); ++k) a[k] = numbers.bits(), b[k] = numbers.bits();
        detail::multiply_low<arch>(detail::quads<arch>::load_unaligned(a.data()),
                                   detail::quads<arch>::load_unaligned(b.data()))
            .store_unaligned(got.data());
        for (std::size_t k = 0; k < a.size(); ++k) wrong += got[k] != a[k] * b[k];
    }
    CHECK(wrong == 0);
}

TEST_CASE("lane shuffles", "[simd]") {
    float_lanes a, b;
    for (std::size_t k = 0; k < lanes; ++k) a[k] = static_cast<float>(k), b[k] = static_cast<float>(lanes + k);
    const auto left = detail::floats<arch>::load_unaligned(a.data()),
               right = detail::floats<arch>::load_unaligned(b.data());
    const float_lanes even = store(detail::even_lanes<arch>(left, right)),
                      odd = store(detail::odd_lanes<arch>(left, right));
    const float_lanes twice = store(detail::twice_low<arch>(left)), swapped = store(detail::swap_pairs<arch>(left));
    for (std::size_t k = 0; k < lanes; ++k) {
        CHECK(distance(even[k], static_cast<float>(2 * k)) == 0);
        CHECK(distance(odd[k], static_cast<float>(2 * k + 1)) == 0);
        CHECK(distance(twice[k], static_cast<float>(k / 2)) == 0);
        CHECK(distance(swapped[k], static_cast<float>(k ^ 1U)) == 0);
    }
}
