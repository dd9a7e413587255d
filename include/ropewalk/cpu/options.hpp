// What a call may choose beside its tensors.
#pragma once

#include "ropewalk/cpu/job.hpp"

namespace ropewalk::cpu {

/// How a call runs.
struct options {
    ropewalk::direction direction = ropewalk::direction::forward;
    int threads = 0;  ///< 0: OpenMP's number; small calls run on one thread all the same
    /// Read instead of the encoding's phases where it exists. Its factors are not known, so inverse is adjoint then.
    cos_sin_table table{};
    /// The output has never been written: its pages come through the cache anyway, so stores should not go around it.
    bool fresh_output = false;
};

}  // namespace ropewalk::cpu
