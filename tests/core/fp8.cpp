#include <ropewalk/core/fp8.hpp>

#include <bit>
#include <cmath>
#include <vector>

#include "support/catch.hpp"
#include "support/effort.hpp"
#include "support/fp8.hpp"
#include "support/random.hpp"

namespace rw = ropewalk;

namespace {

template <class F8>
constexpr const oracle::fp8& defined_format = std::same_as<F8, rw::f8e4m3> ? oracle::e4m3 : oracle::e5m2;

template <class F8>
F8 of_code(std::uint32_t code) {
    F8 value;
    value.bits = static_cast<std::uint8_t>(code);
    return value;
}

template <class F8>
bool rounds_to_nearest(float value) {
    return F8(value).bits == oracle::fp8_code(defined_format<F8>, static_cast<double>(value));
}

}  // namespace

TEMPLATE_TEST_CASE("all 256 codes of 8-bit floats convert to float and back as the format defines", "[fp8]", rw::f8e4m3,
                   rw::f8e5m2) {
    const oracle::fp8& f = defined_format<TestType>;
    for (std::uint32_t code = 0; code < 256; ++code) {
        const auto value = static_cast<float>(of_code<TestType>(code));
        const auto magnitude = static_cast<int>(code % 128);
        INFO("code " << code);
        CHECK(std::signbit(value) == (code >= 128));
        if (magnitude <= f.largest) {
            CHECK(static_cast<double>(std::fabs(value)) == oracle::fp8_number(f, magnitude));
            CHECK(TestType(value).bits == code);
        } else if (f.has_infinity && magnitude == f.largest + 1) {
            CHECK(std::isinf(value));
            CHECK(TestType(value).bits == code - 1);
        } else {
            CHECK(std::isnan(value));
            CHECK(TestType(value).bits == 0x7f);
        }
    }
}

TEMPLATE_TEST_CASE("floats near every number and every midpoint of 8-bit floats round to nearest, ties to even",
                   "[fp8]", rw::f8e4m3, rw::f8e5m2) {
    const oracle::fp8& f = defined_format<TestType>;
    const double largest = oracle::fp8_number(f, f.largest);
    const double step = largest - oracle::fp8_number(f, f.largest - 1);
    std::vector<double> values{largest + step / 4, largest + step / 2, largest + step, 2 * largest, 1e30};
    for (int code = 0; code < f.largest; ++code) {
        values.push_back(oracle::fp8_number(f, code));
        values.push_back((oracle::fp8_number(f, code) + oracle::fp8_number(f, code + 1)) / 2);
    }
    values.push_back(largest);
    int wrong = 0;
    for (const double exact : values) {
        const auto value = static_cast<float>(exact);
        for (const float near : {value, std::nextafter(value, -HUGE_VALF), std::nextafter(value, HUGE_VALF)}) {
            wrong += !rounds_to_nearest<TestType>(near) + !rounds_to_nearest<TestType>(-near);
        }
    }
    CHECK(wrong == 0);
}

TEMPLATE_TEST_CASE("random floats round to the nearest 8-bit float", "[fp8]", rw::f8e4m3, rw::f8e5m2) {
    SEEDED(numbers);
    const oracle::fp8& f = defined_format<TestType>;
    const double smallest = oracle::fp8_number(f, 1), largest = oracle::fp8_number(f, f.largest);
    std::int64_t wrong = 0;
    for (std::int64_t i = 0; i < test::cases(100000); ++i) {
        const auto value = std::bit_cast<float>(static_cast<std::uint32_t>(numbers.bits()));
        wrong += !rounds_to_nearest<TestType>(value);
        wrong += !rounds_to_nearest<TestType>(static_cast<float>(numbers.logarithmic(smallest / 8, largest * 1.4)));
    }
    CHECK(wrong == 0);
}

TEMPLATE_TEST_CASE("numbers beyond the largest 8-bit float saturate, and every NaN has one code", "[fp8]", rw::f8e4m3,
                   rw::f8e5m2) {
    const auto largest = static_cast<std::uint32_t>(defined_format<TestType>.largest);
    for (const float large : {HUGE_VALF, 1e30F}) {
        CHECK(TestType(large).bits == largest);
        CHECK(TestType(-large).bits == (largest | 0x80U));
    }
    for (const std::uint32_t bits : {0x7f800001U, 0x7fc00000U, 0x7fffffffU, 0xff800001U, 0xffffffffU})
        CHECK(TestType(std::bit_cast<float>(bits)).bits == 0x7f);
    CHECK(sizeof(TestType) == 1);
}

TEST_CASE("8-bit floats are constants where their values are", "[fp8]") {
    static_assert(rw::f8e4m3(1.0F).bits == 0x38 && rw::f8e4m3(448.0F).bits == 0x7e && rw::f8e4m3(-0.0F).bits == 0x80);
    static_assert(static_cast<float>(rw::f8e4m3(-0x1p-9F)) == -0x1p-9F && rw::f8e4m3(0x1p-10F).bits == 0);
    static_assert(rw::f8e5m2(1.0F).bits == 0x3c && rw::f8e5m2(57344.0F).bits == 0x7b);
    static_assert(static_cast<float>(rw::f8e5m2(-0x1p-16F)) == -0x1p-16F && rw::f8e5m2(0x1p-17F).bits == 0);
}
