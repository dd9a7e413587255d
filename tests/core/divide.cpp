#include <ropewalk/core/divide.hpp>

#include <cstdint>
#include <vector>

#include "support/catch.hpp"
#include "support/effort.hpp"
#include "support/random.hpp"

using namespace ropewalk::detail;

namespace {

/// Numbers near powers of two and the ends of the range.
std::vector<std::uint32_t> extreme_numbers() {
    std::vector<std::uint32_t> numbers;
    for (int bit = 0; bit < 32; ++bit)
        for (const std::int64_t offset : {-1, 0, 1})
            numbers.push_back(static_cast<std::uint32_t>((std::int64_t{1} << bit) + offset));
    for (const std::uint32_t n : {3U, 5U, 7U, 10U, 40U, 641U, 6700417U, 0xaaaaaaabU, 0xfffffffeU, 0xffffffffU})
        numbers.push_back(n);
    return numbers;
}

}  // namespace

TEST_CASE("a division by a known number is exact for extreme numbers", "[divide]") {
    std::int64_t wrong = 0;
    for (const std::uint32_t d : extreme_numbers()) {
        if (d == 0) continue;
        const divider by(d);
        for (const std::uint32_t n : extreme_numbers()) {
            wrong += by(n) != n / d;
            // The numbers around a multiple of the divisor.
            const std::uint32_t multiple = n / d * d;
            for (const std::uint32_t near : {multiple - 1, multiple, multiple + d - 1}) wrong += by(near) != near / d;
        }
    }
    CHECK(wrong == 0);
}

TEST_CASE("a division by a known number is exact for random numbers", "[divide]") {
    SEEDED(numbers);
    std::int64_t wrong = 0;
    for (std::int64_t i = 0; i < test::cases(200000); ++i) {
        const auto d = static_cast<std::uint32_t>(numbers.bits()) >> numbers.integer(0, 31);
        const auto n = static_cast<std::uint32_t>(numbers.bits()) >> numbers.integer(0, 31);
        if (d != 0) wrong += divider(d)(n) != n / d;
    }
    CHECK(wrong == 0);
}

TEST_CASE("an index is split into its coordinates, in 32 and in 64 bits", "[divide]") {
    SEEDED(numbers);
    const auto check = [](std::int64_t rest, std::int64_t a, std::int64_t b, std::int64_t c, const index_splitter& s) {
        const index_parts parts = s(((rest * s.outer + a) * s.middle + b) * s.inner + c);
        return parts.rest == rest && parts.outer == a && parts.middle == b && parts.inner == c;
    };
    for (int i = 0; i < 1000; ++i) {
        const std::int64_t outer = numbers.integer(1, std::int64_t{1} << numbers.integer(0, 34));
        const index_splitter split(outer, numbers.integer(1, 40), numbers.integer(1, 64));
        CHECK(check(numbers.integer(0, 3), numbers.integer(0, split.outer - 1), numbers.integer(0, split.middle - 1),
                    numbers.integer(0, split.inner - 1), split));
    }
    // Arrays without elements have no index; their extents may be anything.
    CHECK(index_splitter(0, 0, 0)(0).rest == 0);
}
