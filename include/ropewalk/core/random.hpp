// A counter-based random generator: draw i depends on the seed and on i alone.
#pragma once

#include <array>
#include <cstdint>

#include "ropewalk/core/config.hpp"

namespace ropewalk {

/// Philox-4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): four random words of a
/// 128-bit counter and a 64-bit key, the same on a CPU and a GPU and for any number of threads.
RW_HD constexpr std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter,
                                                    std::array<std::uint32_t, 2> key) {
    for (int round = 0; round < 10; ++round) {
        const std::uint64_t a = std::uint64_t{0xD2511F53U} * counter[0];
        const std::uint64_t b = std::uint64_t{0xCD9E8D57U} * counter[2];
        counter = {static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(b),
                   static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(a)};
        key[0] += 0x9E3779B9U;
        key[1] += 0xBB67AE85U;
    }
    return counter;
}

/// 64 random bits: number `index` of the stream (seed, draw, row).
RW_HD constexpr std::uint64_t random_bits(std::uint64_t seed, std::uint32_t draw, std::uint32_t row, std::uint64_t index) {
    const auto word = philox({static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32), row, draw},
                             {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
    return (static_cast<std::uint64_t>(word[1]) << 32) | word[0];
}

}  // namespace ropewalk
