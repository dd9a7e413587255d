/// @file  Number of random cases of a test. Sanitizers run fewer, because they are several times slower.
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

/// `count` cases, multiplied by ROPEWALK_TEST_EFFORT where it is set, and a twentieth of them under a sanitizer.
inline std::int64_t cases(std::int64_t count) {
    const char* const effort = std::getenv("ROPEWALK_TEST_EFFORT");
    const double scaled = static_cast<double>(count) * (effort != nullptr ? std::atof(effort) : 1.0);
    const auto result = static_cast<std::int64_t>(scaled) / divisor;
    return result < 1 ? 1 : result;
}

/// True if cases() runs fewer cases than it is asked for.
inline bool reduced() { return cases(100) < 100; }

}  // namespace test
