/// @file  Bitwise comparison of floats, including zeros and NaNs.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

namespace test {

/// memcmp is undefined for the null pointer of an empty vector.
inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](float x, float y) {
        return std::bit_cast<std::uint32_t>(x) == std::bit_cast<std::uint32_t>(y);
    });
}

}  // namespace test
