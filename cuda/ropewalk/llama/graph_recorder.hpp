// Recording of repeated steps.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "ropewalk/llama/device_backend.hpp"

namespace ropewalk::llama {

/// Everything that a recorded step depends on, except the contents of device memory: addresses, extents, encodings.
struct step_key {
    std::vector<std::int64_t> numbers;
    std::vector<std::shared_ptr<const Encoding>> encodings;  ///< owned, so that their addresses stay unique

    void add(const void* address) {
        numbers.push_back(static_cast<std::int64_t>(reinterpret_cast<std::intptr_t>(address)));
    }
    friend bool operator==(const step_key&, const step_key&) = default;
};

/// Runs steps. Records a step when it comes for the second time in a row, because a step that changes every time (a
/// policy that follows the length) does not repay its recording.
template <class B>
class graph_recorder {
public:
    template <class Step>
    void run(B& backend, step_key key, const Step& step) {
        if (recording_ && key == recorded_) return backend.replay(*recording_);
        if (key != last_) {
            step();
            last_ = std::move(key);
            return;
        }
        recording_.reset();
        recording_.emplace(backend.record(step));
        recorded_ = std::move(key);
        backend.replay(*recording_);
    }

private:
    step_key last_, recorded_;
    std::optional<typename B::recording> recording_;
};

}  // namespace ropewalk::llama
