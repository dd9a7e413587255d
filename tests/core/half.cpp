#include <ropewalk/core/half.hpp>

#include <bit>
#include <cmath>

#include "support/catch.hpp"
#include "support/effort.hpp"
#include "support/random.hpp"
#include "support/rounding.hpp"

namespace rw = ropewalk;

namespace {

template <class T>
const oracle::format& format_for();
template <>
const oracle::format& format_for<rw::f16>() {
    return oracle::f16;
}
template <>
const oracle::format& format_for<rw::bf16>() {
    return oracle::bf16;
}

/// Returns whether the conversion has the bits of the oracle.
template <class T>
bool rounds_as_oracle(float value) {
    const oracle::format& f = format_for<T>();
    return T(value).bits == oracle::encode(oracle::rounded(static_cast<double>(value), f), f);
}

template <class T>
T of_bits(std::uint32_t bits) {
    T value;
    value.bits = static_cast<std::uint16_t>(bits);
    return value;
}

}  // namespace

TEMPLATE_TEST_CASE("all 65536 bit patterns convert to float and back as the format defines", "[half]", rw::f16,
                   rw::bf16) {
    const oracle::format& f = format_for<TestType>();
    int wrong = 0;
    for (std::uint32_t bits = 0; bits < 65536; ++bits) {
        const auto value = static_cast<float>(of_bits<TestType>(bits));
        const double exact = oracle::decode(bits, f);
        if (std::isnan(exact)) {
            wrong += !std::isnan(value) || (std::bit_cast<std::uint32_t>(value) >> 31) != bits >> 15;
            const std::uint32_t back = TestType(value).bits;
            wrong += !std::isnan(oracle::decode(back, f)) || (back >> 15) != bits >> 15;
        } else {
            wrong += static_cast<double>(value) != exact || std::signbit(value) != std::signbit(exact);
            wrong += TestType(value).bits != bits;
        }
    }
    CHECK(wrong == 0);
}

TEMPLATE_TEST_CASE("floats near every midpoint round to nearest, ties to even", "[half]", rw::f16, rw::bf16) {
    const oracle::format& f = format_for<TestType>();
    const std::uint32_t infinity = oracle::encode(HUGE_VAL, f);
    int wrong = 0;
    for (std::uint32_t bits = 0; bits < infinity; ++bits) {
        // The upper neighbour of the largest number is the start of the next binade.
        const double low = oracle::decode(bits, f);
        const double high = bits + 1 == infinity ? 2 * low - oracle::decode(bits - 1, f) : oracle::decode(bits + 1, f);
        const auto middle = static_cast<float>(low / 2 + high / 2);
        for (const float value : {middle, std::nextafter(middle, 0.0F), std::nextafter(middle, HUGE_VALF)}) {
            wrong += !rounds_as_oracle<TestType>(value) || !rounds_as_oracle<TestType>(-value);
        }
    }
    CHECK(wrong == 0);
}

TEMPLATE_TEST_CASE("random floats round as in the oracle", "[half]", rw::f16, rw::bf16) {
    SEEDED(numbers);
    std::int64_t wrong = 0;
    for (std::int64_t i = 0; i < test::cases(1000000); ++i) {
        const auto value = std::bit_cast<float>(static_cast<std::uint32_t>(numbers.bits()));
        if (std::isnan(value)) {
            wrong += !std::isnan(static_cast<float>(TestType(value)));
        } else {
            wrong += !rounds_as_oracle<TestType>(value);
        }
    }
    CHECK(wrong == 0);
}

TEMPLATE_TEST_CASE("every NaN stays a NaN of its sign", "[half]", rw::f16, rw::bf16) {
    // Some have only low bits set, without which they would be infinity.
    for (const std::uint32_t bits :
         {0x7f800001U, 0x7fc00000U, 0x7fffffffU, 0x7f801000U, 0xff800001U, 0xffc00000U, 0xffffffffU}) {
        const TestType half(std::bit_cast<float>(bits));
        CHECK(std::isnan(static_cast<float>(half)));
        CHECK((half.bits >> 15) == static_cast<int>(bits >> 31));
    }
}

TEST_CASE("16-bit conversions are usable at compile time", "[half]") {
    static_assert(rw::f16(1.0F).bits == 0x3c00 && rw::f16(65504.0F).bits == 0x7bff && rw::f16(65520.0F).bits == 0x7c00);
    static_assert(rw::bf16(1.0F).bits == 0x3f80 && static_cast<float>(rw::bf16(-2.5F)) == -2.5F);
    static_assert(static_cast<float>(rw::f16(0x1p-24F)) == 0x1p-24F && rw::f16(0x1p-25F).bits == 0);
    CHECK(sizeof(rw::f16) == 2);
    CHECK(sizeof(rw::bf16) == 2);
}
