#include "cuda.hpp"

#include <ropewalk/llama/cuda_backend.cuh>
#include <ropewalk/llama/device_model.hpp>

namespace giraffe {

std::string cuda_device_name() { return llama::cuda_machine().name(); }

outcome run_on_cuda(const run_params& params, llama::model_weights weights) {
    llama::cuda_machine machine;
    llama::device_cache cache(machine, params.config, params.cache);
    const auto make = [&]<class Model>(std::type_identity<Model>) {
        const llama::model_weights host = std::move(weights);  // freed after the copy
        return Model(machine, params.config, host, params.encoding, {.measures = true});
    };
    outcome result = run_model(
        params, cache, [&] { return make(std::type_identity<llama::device_stack<llama::cuda_machine>>{}); },
        [&] { return make(std::type_identity<llama::device_model<llama::cuda_machine>>{}); });
    result.peak_memory_bytes = machine.most_bytes_held();
    return result;
}

}  // namespace giraffe
