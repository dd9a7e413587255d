// giraffe_13b on a GPU, where it was built with that.
#pragma once

#include <string>

#include "run.hpp"

namespace giraffe {

/// The name of the device. Throws ropewalk::error where there is none, or nothing was built for one.
std::string cuda_device_name();

/// Runs a job on the current device; the weights are given back as soon as they are there. Memory is the device's.
outcome run_on_cuda(const job& what, llama::model_weights weights);

}  // namespace giraffe
