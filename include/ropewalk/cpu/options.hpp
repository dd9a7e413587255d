// Options of a rotation on the CPU.
#pragma once

#include "ropewalk/cpu/threads.hpp"
#include "ropewalk/cpu/tuning.hpp"
#include "ropewalk/rotation/args.hpp"

namespace ropewalk::cpu {

using ropewalk::direction;

struct options {
    ropewalk::direction direction = ropewalk::direction::forward;
    cpu::threads threads{};  ///< a limit, or the caller's own pool: `.threads = 4`
    /// Replaces the phases of the encoding where it exists. Factors in it are unknown, so inverse equals adjoint.
    cos_sin_table table{};
    /// The output was never written. The system zeroes its pages through the cache at the first write, so its lines are
    /// in the cache already and streaming stores would cost time.
    bool fresh_output = false;
    /// Changes the time and no bit of the result. Null: that of the process, machine_profile(), which re-rotations and
    /// tables always take.
    const tuning_profile* tuning = nullptr;
};

}  // namespace ropewalk::cpu
