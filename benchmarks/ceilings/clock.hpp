// How the demonstration and the benchmarks take time.
#pragma once

#include <algorithm>
#include <chrono>
#include <vector>

namespace ceilings {

/// Seconds that a call takes, by a clock that never goes back.
template <class F>
double seconds(const F& run) {
    const auto start = std::chrono::steady_clock::now();
    run();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Of at least one sample; the upper one of two in the middle.
inline double median(std::vector<double> samples) {
    std::sort(samples.begin(), samples.end());
    return samples[samples.size() / 2];
}

}  // namespace ceilings
