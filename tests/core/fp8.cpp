#include <ropewalk/core/fp8.hpp>

#include <bit>
#include <cmath>
#include <vector>

#include "support/catch.hpp"
#include "support/e4m3.hpp"
#include "support/effort.hpp"
#include "support/random.hpp"

namespace rw = ropewalk;

namespace {

rw::f8e4m3 of_code(std::uint32_t code) {
    rw::f8e4m3 value;
    value.bits = static_cast<std::uint8_t>(code);
    return value;
}

bool rounds_to_nearest(float value) { return rw::f8e4m3(value).bits == oracle::e4m3_code(static_cast<double>(value)); }

}  // namespace

TEST_CASE("all 256 codes of e4m3 convert to float and back as the format defines", "[fp8]") {
    for (std::uint32_t code = 0; code < 256; ++code) {
        const auto value = static_cast<float>(of_code(code));
        INFO("code " << code);
        CHECK(std::signbit(value) == (code >= 128));
        if (code % 128 == 127) {
            CHECK(std::isnan(value));
            CHECK(rw::f8e4m3(value).bits == 0x7f);
        } else {
            CHECK(static_cast<double>(std::fabs(value)) == oracle::e4m3_number(static_cast<int>(code % 128)));
            CHECK(rw::f8e4m3(value).bits == code);
        }
    }
}

TEST_CASE("floats near every number and every midpoint of e4m3 round to nearest, ties to even", "[fp8]") {
    std::vector<double> values{448.0, 456.0, 464.0, 472.0, 480.0, 512.0, 1e30};
    for (int code = 0; code < 126; ++code) {
        values.push_back(oracle::e4m3_number(code));
        values.push_back((oracle::e4m3_number(code) + oracle::e4m3_number(code + 1)) / 2);
    }
    int wrong = 0;
    for (const double exact : values) {
        const auto value = static_cast<float>(exact);
        for (const float near : {value, std::nextafter(value, -HUGE_VALF), std::nextafter(value, HUGE_VALF)}) {
            wrong += !rounds_to_nearest(near) + !rounds_to_nearest(-near);
        }
    }
    CHECK(wrong == 0);
}

TEST_CASE("random floats round to the nearest number of e4m3", "[fp8]") {
    SEEDED(numbers);
    std::int64_t wrong = 0;
    for (std::int64_t i = 0; i < test::cases(100000); ++i) {
        const auto value = std::bit_cast<float>(static_cast<std::uint32_t>(numbers.bits()));
        wrong += !rounds_to_nearest(value);
        wrong += !rounds_to_nearest(static_cast<float>(numbers.logarithmic(0x1p-12, 600)));
    }
    CHECK(wrong == 0);
}

TEST_CASE("numbers beyond e4m3 saturate, and every NaN has one code", "[fp8]") {
    static_assert(rw::f8e4m3(1.0F).bits == 0x38 && rw::f8e4m3(448.0F).bits == 0x7e && rw::f8e4m3(-0.0F).bits == 0x80);
    static_assert(static_cast<float>(rw::f8e4m3(-0x1p-9F)) == -0x1p-9F && rw::f8e4m3(0x1p-10F).bits == 0);
    CHECK(rw::f8e4m3(HUGE_VALF).bits == 0x7e);
    CHECK(rw::f8e4m3(-HUGE_VALF).bits == 0xfe);
    CHECK(rw::f8e4m3(1e30F).bits == 0x7e);
    for (const std::uint32_t bits : {0x7f800001U, 0x7fc00000U, 0x7fffffffU, 0xff800001U, 0xffffffffU})
        CHECK(rw::f8e4m3(std::bit_cast<float>(bits)).bits == 0x7f);
    CHECK(sizeof(rw::f8e4m3) == 1);
}
