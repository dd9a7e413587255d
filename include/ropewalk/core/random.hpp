// Counter-based random generator: number i depends only on the seed and on i.
#pragma once

#include <cstdint>

#include "ropewalk/core/compiler.hpp"

namespace ropewalk {

/// Four 32-bit words: the counter of Philox, or its output.
struct random_words {
    std::uint32_t word[4];
    friend constexpr bool operator==(const random_words&, const random_words&) = default;
};

/// Philox-4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): maps a
/// 128-bit counter and a 64-bit key to four random words. The result is the same on CPU and GPU and for any number of
/// threads.
RW_HD constexpr random_words philox(random_words counter, std::uint64_t key) {
    auto low = static_cast<std::uint32_t>(key), high = static_cast<std::uint32_t>(key >> 32);
    for (int round = 0; round < 10; ++round) {
        const std::uint64_t a = std::uint64_t{0xD2511F53U} * counter.word[0];
        const std::uint64_t b = std::uint64_t{0xCD9E8D57U} * counter.word[2];
        counter = {{static_cast<std::uint32_t>(b >> 32) ^ counter.word[1] ^ low, static_cast<std::uint32_t>(b),
                    static_cast<std::uint32_t>(a >> 32) ^ counter.word[3] ^ high, static_cast<std::uint32_t>(a)}};
        low += 0x9E3779B9U;
        high += 0xBB67AE85U;
    }
    return counter;
}

/// Returns 64 random bits: number `index` of the stream (seed, draw, row).
RW_HD constexpr std::uint64_t random_bits(std::uint64_t seed, std::uint32_t draw, std::uint32_t row,
                                          std::uint64_t index) {
    const random_words random =
        philox({{static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32), row, draw}}, seed);
    return (static_cast<std::uint64_t>(random.word[1]) << 32) | random.word[0];
}

}  // namespace ropewalk
