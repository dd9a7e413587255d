/// @file  How long a call takes on the device: graphs of several calls, each on buffers of its own, replayed.
#pragma once

#include <algorithm>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "device.hpp"
#include "record.hpp"

namespace bench {

/// How much a measurement does.
struct effort {
    int repeats = 25;
    double seconds = 0.25;        ///< at most, of one candidate at one size
    double least_seconds = 2e-4;  ///< of one replay, so that clocks and launches of graphs do not count
};

/// Work on buffer set number `set` on a stream.
using work = std::function<void(device::stream_handle, int set)>;

/// What became of a candidate: microseconds, or why it could not be measured.
struct outcome {
    double microseconds = 0;
    std::string problem;
};

/// The times of several candidates that take turns, medians of many replays each. A replay is `sets` calls or a
/// multiple of them, each on the next buffer set: what one call leaves in the L2 cache is gone when its set comes
/// again, but for calls of so few tokens that all sets lie there.
inline std::vector<outcome> contest(const std::vector<work>& candidates, int sets, const effort& how) {
    struct entry {
        std::unique_ptr<device::graph> graph;
        int calls = 0;
        std::vector<double> samples;
        std::string problem;
    };
    const device::stream stream;
    std::vector<entry> entries;
    for (const work& candidate : candidates) {
        entry one;
        const auto record = [&](int rounds) {
            one.calls = rounds * sets;
            one.graph = std::make_unique<device::graph>(
                stream, [&candidate, calls = one.calls, sets](device::stream_handle on) {
                    for (int call = 0; call < calls; ++call) candidate(on, call % sets);
                });
        };
        const auto replay = [&] { return device::microseconds(stream, [&] { one.graph->replay(stream); }); };
        try {
            record(1);
            replay();
            const double once = std::max(replay(), 0.1);
            const double rounds = std::min(500.0 / sets, how.least_seconds * 1e6 / once);
            if (rounds > 1) record(static_cast<int>(rounds) + 1);
            replay();
        } catch (const std::exception& problem) {
            one.problem = problem.what();
        }
        entries.push_back(std::move(one));
    }
    double spent = 0;
    const double limit = how.seconds * 1e6 * static_cast<double>(entries.size());
    for (int repeat = 0; repeat < how.repeats && (repeat < 5 || spent < limit); ++repeat) {
        for (entry& one : entries) {
            if (!one.problem.empty()) continue;
            const double time = device::microseconds(stream, [&] { one.graph->replay(stream); });
            one.samples.push_back(time / one.calls);
            spent += time;
        }
    }
    std::vector<outcome> outcomes;
    for (entry& one : entries)
        outcomes.push_back({one.problem.empty() ? median(std::move(one.samples)) : 0, std::move(one.problem)});
    return outcomes;
}

}  // namespace bench
