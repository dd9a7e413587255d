// Steps that come again and again, recorded once.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "ropewalk/llama/device_backend.hpp"

namespace ropewalk::llama {

/// All that a recorded step depends on beside what device memory holds: addresses, extents, encodings.
struct step_key {
    std::vector<std::int64_t> numbers;
    std::vector<std::shared_ptr<const Encoding>> encodings;  ///< kept, so that no other has their address

    void add(const void* address) {
        numbers.push_back(static_cast<std::int64_t>(reinterpret_cast<std::intptr_t>(address)));
    }
    friend bool operator==(const step_key&, const step_key&) = default;
};

/// Runs steps, and records one when it comes for the second time in a row: what changes every time, a scheme that
/// follows the length, is not worth it.
template <class M>
class step_recorder {
public:
    template <class Step>
    void run(M& machine, step_key key, const Step& step) {
        if (recording_ && key == recorded_) return machine.replay(*recording_);
        if (key != last_) {
            step();
            last_ = std::move(key);
            return;
        }
        recording_.reset();
        recording_.emplace(machine.record(step));
        recorded_ = std::move(key);
        machine.replay(*recording_);
    }

private:
    step_key last_, recorded_;
    std::optional<typename M::recording> recording_;
};

}  // namespace ropewalk::llama
