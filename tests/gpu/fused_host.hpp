/// @file  Fused calls as launches on the host.
#pragma once

#include "cases/fused_case.hpp"
#include "host.hpp"

namespace test {

/// The plan of a fused call on tensors of any type.
ropewalk::gpu::fused_plan make_plan_of(ropewalk::layout_kind layout, const fused_tensors& in, const fused_tensors& out,
                                       const ropewalk::gpu::fusion& fusion, const ropewalk::Encoding& encoding,
                                       const ropewalk::positions& positions, const ropewalk::gpu::options& options = {},
                                       const ropewalk::gpu::device_shape& device = {});

/// A tensor's heads after their norm alone, in float32: the fused kernel at position 0.
void norm_on_host(ropewalk::layout_kind layout, const ropewalk::tensor& x, const ropewalk::gpu::head_norm& norm,
                  const ropewalk::Encoding& encoding);

}  // namespace test
