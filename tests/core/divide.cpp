#include <ropewalk/core/divide.hpp>

#include <cstdint>
#include <vector>

#include "support/catch.hpp"
#include "support/effort.hpp"
#include "support/random.hpp"

using namespace ropewalk::detail;

namespace {

/// Divisors near powers of two and the ends of the range.
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
        for (const std::uint32_t any : extreme_numbers()) {
            const std::uint32_t n = any & 0x7fffffffU;
            wrong += by(n) != n / d;
            // The numbers around a multiple of the divisor.
            const std::uint32_t multiple = n / d * d;
            for (const std::uint32_t near : {multiple - 1, multiple, multiple + d - 1})
                if (near < 0x80000000U) wrong += by(near) != near / d;
        }
    }
    CHECK(wrong == 0);
}

TEST_CASE("a division by a known number is exact for random numbers", "[divide]") {
    SEEDED(numbers);
    std::int64_t wrong = 0;
    for (std::int64_t i = 0; i < test::cases(200000); ++i) {
        const auto d = static_cast<std::uint32_t>(numbers.bits()) >> numbers.integer(0, 31);
        const auto n = static_cast<std::uint32_t>(numbers.bits()) >> numbers.integer(1, 31);
        if (d != 0) wrong += divider(d)(n) != n / d;
    }
    CHECK(wrong == 0);
}

TEST_CASE("an index is split into its coordinates, in 32 and in 64 bits", "[divide]") {
    SEEDED(numbers);
    for (int i = 0; i < 2000; ++i) {
        const std::int64_t outer = numbers.integer(1, (std::int64_t{1} << numbers.integer(1, 32)) - 1);
        const auto middle = static_cast<std::int32_t>(numbers.integer(1, 40));
        const auto inner = static_cast<std::int32_t>(numbers.integer(1, 64));
        const std::int64_t rest = numbers.integer(0, numbers.integer(0, 1) == 0 ? 3 : 0xffffffff / outer);
        const std::int64_t a = numbers.integer(0, outer - 1), b = numbers.integer(0, middle - 1);
        const std::int64_t c = numbers.integer(0, inner - 1);
        const index_splitter split(static_cast<std::uint32_t>(outer), middle, inner);
        const index_parts parts = split(((rest * outer + a) * middle + b) * inner + c);
        CHECK((parts.rest == rest && parts.outer == a && parts.middle == b && parts.inner == c));
    }
    // Arrays without elements have no index; their extents may be anything.
    CHECK(index_splitter(0, 0, 0)(0).rest == 0);
}
