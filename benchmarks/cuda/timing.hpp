// Time of calls on the device, measured by replaying several calls on different buffers, from a graph unless told not
// to.
#pragma once

#include <algorithm>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "../clock.hpp"
#include "device.hpp"

namespace bench {

/// Limits of a measurement.
struct effort {
    int repeats = 25;
    double max_seconds = 0.25;         ///< of one candidate at one size
    double min_replay_seconds = 2e-4;  ///< hides the cost of events and graph launches
};

/// A call on buffer set number `set` on a stream.
using device_call = std::function<void(device::stream_handle, int set)>;

/// A call to time. Without a graph, its time includes launches by the host wherever those are slower.
struct timed_call {
    device_call run;
    bool graph = true;
};

/// The result of a candidate: microseconds, or the error that prevented the measurement.
struct outcome {
    double microseconds = 0;
    std::string error;
};

/// Returns the median times of interleaved candidates. A replay is a multiple of `sets` calls, each on the next buffer
/// set. Unless all sets fit into the L2 cache, the data of a call have left the cache before its set is used again.
inline std::vector<outcome> time_interleaved(const std::vector<timed_call>& candidates, int sets,
                                             const effort& limits) {
    struct entry {
        std::function<void()> replay;
        int calls = 0;
        std::vector<double> samples;
        std::string error;
    };
    const device::stream stream;
    std::vector<entry> entries;
    for (const timed_call& candidate : candidates) {
        entry added;
        const auto record = [&](int rounds) {
            added.calls = rounds * sets;
            const auto all_calls = [&run = candidate.run, calls = added.calls, sets](device::stream_handle on) {
                for (int call = 0; call < calls; ++call) run(on, call % sets);
            };
            if (candidate.graph) {
                const auto graph = std::make_shared<device::graph>(stream, all_calls);
                added.replay = [graph, &stream] { graph->replay(stream); };
            } else {
                added.replay = [all_calls, &stream] { all_calls(stream.get()); };
            }
        };
        const auto replay = [&] { return device::microseconds(stream, added.replay); };
        try {
            record(1);
            replay();
            const double once = std::max(replay(), 0.1);
            const double rounds = std::min(500.0 / sets, limits.min_replay_seconds * 1e6 / once);
            if (rounds > 1) record(static_cast<int>(rounds) + 1);
            replay();
        } catch (const std::exception& error) {
            added.error = error.what();
        }
        entries.push_back(std::move(added));
    }
    double spent = 0;
    const double limit = limits.max_seconds * 1e6 * static_cast<double>(entries.size());
    for (int repeat = 0; repeat < limits.repeats && (repeat < 5 || spent < limit); ++repeat) {
        for (entry& timed : entries) {
            if (!timed.error.empty()) continue;
            const double time = device::microseconds(stream, timed.replay);
            timed.samples.push_back(time / timed.calls);
            spent += time;
        }
    }
    std::vector<outcome> outcomes;
    for (entry& timed : entries)
        outcomes.push_back({timed.error.empty() ? median(std::move(timed.samples)) : 0, std::move(timed.error)});
    return outcomes;
}

}  // namespace bench
