// Runs of giraffe_13b on a CUDA device.
#include "cuda.hpp"

#include <type_traits>

#include <ropewalk/llama/cuda_backend.cuh>
#include <ropewalk/llama/device_model.hpp>

namespace giraffe {

std::string cuda_device_name() { return llama::cuda_backend().name(); }

outcome run_on_cuda(const run_params& params, llama::model_weights weights) {
    llama::cuda_backend backend;
    llama::device_cache cache(backend, params.config, params.cache);
    const auto make = [&]<class Model>(std::type_identity<Model>) {
        const llama::model_weights host = std::move(weights);  // freed when the device has its copy
        return Model(backend, params.config, host, params.encoding, {.measures = true});
    };
    outcome result = run_model(
        params, cache, [&] { return make(std::type_identity<llama::device_stack<llama::cuda_backend>>{}); },
        [&] { return make(std::type_identity<llama::device_model<llama::cuda_backend>>{}); });
    result.peak_memory_bytes = backend.most_bytes_held();
    return result;
}

}  // namespace giraffe
