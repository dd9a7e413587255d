/// @file  How much a test does: less under a sanitizer, which makes everything several times slower.
#pragma once

#include <cstdint>
#include <cstdlib>

namespace test {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr std::int64_t divisor = 20;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
inline constexpr std::int64_t divisor = 20;
#else
inline constexpr std::int64_t divisor = 1;
#endif
#else
inline constexpr std::int64_t divisor = 1;
#endif

/// `count` cases, or a twentieth of them under a sanitizer, or what ROPEWALK_TEST_EFFORT multiplies them by.
inline std::int64_t cases(std::int64_t count) {
    const char* const effort = std::getenv("ROPEWALK_TEST_EFFORT");
    const double scaled = static_cast<double>(count) * (effort != nullptr ? std::atof(effort) : 1.0);
    const auto result = static_cast<std::int64_t>(scaled) / divisor;
    return result < 1 ? 1 : result;
}

}  // namespace test
