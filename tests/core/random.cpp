#include <ropewalk/core/random.hpp>

#include <set>

#include "support/catch.hpp"

namespace rw = ropewalk;
using words = rw::random_words;

// Vectors of kat_vectors of Random123, philox4x32-10.
TEST_CASE("philox matches the published test vectors", "[random]") {
    static_assert(rw::philox({{0, 0, 0, 0}}, 0) == words{{0x6627e8d5U, 0xe169c58dU, 0xbc57ac4cU, 0x9b00dbd8U}});
    constexpr std::uint32_t ones = 0xffffffffU;
    CHECK(rw::philox({{ones, ones, ones, ones}}, 0xffffffffffffffffU) ==
          words{{0x408f276dU, 0x41c83b0eU, 0xa20bc7c6U, 0x6d5451fdU}});
    CHECK(rw::philox({{0x243f6a88U, 0x85a308d3U, 0x13198a2eU, 0x03707344U}}, 0x299f31d0a4093822U) ==
          words{{0xd16cfe09U, 0x94fdccebU, 0x5001e420U, 0x24126ea1U}});
}

TEST_CASE("every part of the counter and of the seed changes the result", "[random]") {
    std::set<std::uint64_t> seen;
    for (std::uint64_t i = 0; i < 16; ++i) {
        const auto small = static_cast<std::uint32_t>(i);
        seen.insert(rw::random_bits(i, 0, 0, 0));
        seen.insert(rw::random_bits((i + 1) << 32, 0, 0, 0));
        seen.insert(rw::random_bits(0, small + 1, 0, 0));
        seen.insert(rw::random_bits(0, 0, small + 1, 0));
        seen.insert(rw::random_bits(0, 0, 0, i + 1));
        seen.insert(rw::random_bits(0, 0, 0, (i + 1) << 32));
    }
    CHECK(seen.size() == 6 * 16);
}

TEST_CASE("random bits are the low half of a philox block", "[random]") {
    CHECK(rw::random_bits(0, 0, 0, 0) == 0xe169c58d6627e8d5U);
    const auto block = rw::philox({{7, 3, 5, 2}}, (std::uint64_t{13} << 32) | 11);
    CHECK(rw::random_bits((std::uint64_t{13} << 32) | 11, 2, 5, (std::uint64_t{3} << 32) | 7) ==
          ((static_cast<std::uint64_t>(block.word[1]) << 32) | block.word[0]));
}
