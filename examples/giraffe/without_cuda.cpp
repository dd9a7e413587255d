// Errors of --device cuda in builds without CUDA.
#include "cuda.hpp"

namespace giraffe {

std::string cuda_device_name() {
    rw::detail::fail(
        "--device cuda: this program was built without CUDA. The build needs nvcc and cuBLAS with its headers; CMake "
        "reports what it finds");
}

outcome run_on_cuda(const run_params& /*params*/, llama::model_weights /*weights*/) {
    (void)cuda_device_name();
    return {};
}

}  // namespace giraffe
