// What a call may choose beside its tensors.
#pragma once

#include "ropewalk/cpu/job.hpp"

namespace ropewalk::cpu {

/// How a call runs.
struct options {
    direction way = direction::forward;
    int threads = 0;        ///< 0: OpenMP's number; small calls run on one thread all the same
    cos_sin_table table{};  ///< read instead of the encoding's phases where it exists
};

}  // namespace ropewalk::cpu
