#include "contest.hpp"

#include <algorithm>
#include <chrono>
#include <stdexcept>

#include "clock.hpp"

namespace bench {

namespace {
constexpr double sample_seconds = 1e-3;
constexpr double slow_seconds = 0.25;    // a pass of a candidate which is only context then has three samples
constexpr double cached_seconds = 1e-2;  // a longer pass does not fit into a cache, so warming it is vain
constexpr double cheap_seconds = 0.25;   // further rounds are worth this much
constexpr int least_rounds = 7;
constexpr int most_rounds = 25;
}  // namespace

void contest::add(std::string_view name, std::function<void(int)> run, bool context_only) {
    candidates_.push_back({name, std::move(run), context_only, 0, 0, {}});
}

double contest::seconds(candidate& one, int passes) {
    const auto run = [&] {
        for (int i = 0; i < passes; ++i) one.run(one.pass++);
    };
    return ceilings::seconds(run) / passes;
}

void contest::round() {
    for (candidate& one : candidates_) {
        if (one.passes == 0) {
            seconds(one, 2);
            const double pass = seconds(one, 2);
            one.passes = pass > cached_seconds ? 1 : std::clamp(static_cast<int>(sample_seconds / pass), 2, 1 << 20);
        }
        const bool slow = !one.samples.empty() && one.samples.front() > slow_seconds;
        if (one.context_only && slow && one.samples.size() >= 3) continue;
        if (one.passes > 1) seconds(one, 2);
        one.samples.push_back(seconds(one, one.passes));
    }
    ++rounds_;
}

void contest::finish() {
    const auto start = std::chrono::steady_clock::now();
    const auto elapsed = [&] {
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    };
    while (rounds_ < least_rounds || (rounds_ < most_rounds && elapsed() < cheap_seconds)) round();
}

double contest::median(std::string_view name) const {
    for (const candidate& one : candidates_) {
        if (one.name == name) return ceilings::median(one.samples);
    }
    throw std::out_of_range("no such candidate");
}

double contest::ceiling(int threads, std::string_view team, std::string_view alone) const {
    const double one = median(alone);
    return threads > 1 ? std::min(one, median(team)) : one;
}

}  // namespace bench
