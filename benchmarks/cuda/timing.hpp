/// @file  How long a call takes on the device: graphs of several calls, each on buffers of its own, replayed.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
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

/// The microseconds of several candidates that take turns, medians of many replays each. A replay is `sets` calls or a
/// multiple of them, each on the next buffer set: what one call leaves in the L2 cache is gone when its set comes
/// again.
inline std::vector<double> contest(const std::vector<work>& candidates, int sets, const effort& how) {
    struct entry {
        std::unique_ptr<device::graph> graph;
        int calls = 0;
        std::vector<double> samples;
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
        record(1);
        const auto replay = [&] { return device::microseconds(stream, [&] { one.graph->replay(stream); }); };
        replay();
        const double once = std::max(replay(), 0.1);
        const double rounds = std::min(500.0 / sets, how.least_seconds * 1e6 / once);
        if (rounds > 1) record(static_cast<int>(rounds) + 1);
        replay();
        entries.push_back(std::move(one));
    }
    double spent = 0;
    const double limit = how.seconds * 1e6 * static_cast<double>(entries.size());
    for (int repeat = 0; repeat < how.repeats && (repeat < 5 || spent < limit); ++repeat) {
        for (entry& one : entries) {
            const double time = device::microseconds(stream, [&] { one.graph->replay(stream); });
            one.samples.push_back(time / one.calls);
            spent += time;
        }
    }
    std::vector<double> medians;
    for (entry& one : entries) medians.push_back(median(std::move(one.samples)));
    return medians;
}

}  // namespace bench
