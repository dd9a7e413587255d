// giraffe_13b on a GPU.
#pragma once

#include <string>

#include "run.hpp"

namespace giraffe {

/// Returns the name of the device. Throws ropewalk::error without a device or a CUDA build.
std::string cuda_device_name();

/// Runs a model on the current device. Frees the weights as soon as the device holds them. The peak memory is the
/// device's.
outcome run_on_cuda(const run_params& params, llama::model_weights weights);

}  // namespace giraffe
