// Rotations on a CUDA device, through the module ropewalk._cuda, which the first array on a device imports.
#pragma once

#include <ropewalk/rotation/args.hpp>
#include <ropewalk/rotation/fused_args.hpp>
#include <ropewalk/rotation/rerotate_cache_args.hpp>

#include "array.hpp"

namespace ropewalk::python {

/// Runs on the device of `like`: on PyTorch's current stream for its tensors, on the legacy default stream for arrays
/// of other libraries, as DLPack specifies. Throws, with the way to get the module, if it is missing.
void run_on_device(const array& like, rotate_args args);

/// Runs a fused call in the same way.
void run_fused_on_device(const array& like, fused_args args);
void run_rerotate_cache_on_device(const array& like, rerotate_cache_args args);

/// Throws what run_on_device() would throw before the launch.
void check_on_device(const array& like, rotate_args args);

}  // namespace ropewalk::python
