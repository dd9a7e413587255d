// Parameters of a validated fused call, common to the CPU and to GPUs.
#pragma once

#include "ropewalk/rotation/fused_args.hpp"
#include "ropewalk/rotation/params.hpp"
#include "ropewalk/rotation/slot_reader.hpp"

namespace ropewalk {

/// A validated fused call. The outputs of `rotation` are absent where results go elsewhere.
struct fused_params {
    rotate_params rotation{};  ///< of q and k
    tensor v_in{}, v_out{};
    fusion with{};
    slot_reader slots{};
};

}  // namespace ropewalk
