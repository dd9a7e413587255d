#include "comparison.hpp"

#include <algorithm>
#include <chrono>
#include <stdexcept>

#include "clock.hpp"

namespace bench {

namespace {
constexpr double sample_seconds = 1e-3;
constexpr double slow_seconds = 0.25;    // a slower pass of a context candidate gets three samples
constexpr double cached_seconds = 1e-2;  // the data of a longer pass do not fit into a cache: warming up is useless
constexpr double extra_seconds = 0.25;   // for rounds above the minimum
constexpr int min_rounds = 7;
constexpr int max_rounds = 25;
}  // namespace

void comparison::add(std::string_view name, std::function<void(int)> run, bool context_only) {
    candidates_.push_back({.name = name, .run = std::move(run), .context_only = context_only, .samples = {}});
}

double comparison::seconds_per_pass(candidate& entry, int passes) {
    const auto run = [&] {
        for (int i = 0; i < passes; ++i) entry.run(entry.pass++);
    };
    return seconds(run) / passes;
}

void comparison::round() {
    for (candidate& entry : candidates_) {
        if (entry.passes == 0) {
            // The first measurement is cold, and either may be interrupted.
            const double pass = std::min(seconds_per_pass(entry, 2), seconds_per_pass(entry, 2));
            entry.passes = pass > cached_seconds ? 1 : std::clamp(static_cast<int>(sample_seconds / pass), 2, 1 << 20);
        }
        const bool slow = !entry.samples.empty() && entry.samples.front() > slow_seconds;
        if (entry.context_only && slow && entry.samples.size() >= 3) continue;
        if (entry.passes > 1) seconds_per_pass(entry, 2);
        entry.samples.push_back(seconds_per_pass(entry, entry.passes));
    }
    ++rounds_;
}

void comparison::finish() {
    const auto start = std::chrono::steady_clock::now();
    const auto elapsed = [&] {
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    };
    while (rounds_ < min_rounds || (rounds_ < max_rounds && elapsed() < extra_seconds)) round();
}

double comparison::median(std::string_view name) const {
    for (const candidate& entry : candidates_) {
        if (entry.name == name) return bench::median(entry.samples);
    }
    throw std::out_of_range("unknown candidate");
}

double comparison::bound(int threads, std::string_view all, std::string_view single) const {
    return threads > 1 ? std::min(median(single), median(all)) : median(single);
}

}  // namespace bench
