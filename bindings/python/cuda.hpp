// Rotations on a CUDA device, through the module ropewalk._cuda, which the first array on a device imports.
#pragma once

#include <ropewalk/rotation/params.hpp>

#include "arguments.hpp"

namespace ropewalk::python {

/// Rotates on the device of `like`: on PyTorch's current stream for its tensors, on the legacy default stream for
/// arrays of other libraries, as DLPack specifies. Throws, with the way to get the module, if it is missing.
void rotate_on_device(const array& like, const tensor& q, const tensor& k, const tensor& q_out, const tensor& k_out,
                      const Encoding& encoding, const token_positions& where, direction direction,
                      const cos_sin_table& table);

/// Moves keys from one encoding and its positions to another.
void rerotate_on_device(const array& like, const tensor& k, const Encoding& source,
                        const token_positions& source_positions, const Encoding& target,
                        const token_positions& target_positions);

}  // namespace ropewalk::python
