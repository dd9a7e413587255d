/// @file  Whether floats are the same to the bit, zeros and NaNs too.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

namespace test {

/// Not by memcmp, which may not be asked about the null pointer of an empty vector.
inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](float one, float other) {
        return std::bit_cast<std::uint32_t>(one) == std::bit_cast<std::uint32_t>(other);
    });
}

}  // namespace test
