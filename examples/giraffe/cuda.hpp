// Runs of giraffe_13b on a GPU, if it was built with CUDA.
#pragma once

#include <string>

#include "run.hpp"

namespace giraffe {

/// Returns the name of the device. Throws ropewalk::error if there is none, or if the program was built without CUDA.
std::string cuda_device_name();

/// Runs a model on the current device and measures the memory of the device. Frees the weights after their upload.
outcome run_on_cuda(const run_params& params, llama::model_weights weights);

}  // namespace giraffe
