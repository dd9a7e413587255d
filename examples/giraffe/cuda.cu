#include "cuda.hpp"

#include <ropewalk/llama/cuda_backend.cuh>
#include <ropewalk/llama/device_model.hpp>

namespace giraffe {

std::string cuda_device_name() { return llama::cuda_machine().name(); }

outcome run_on_cuda(const job& what, llama::model_weights weights) {
    llama::cuda_machine machine;
    llama::device_cache cache(machine, what.config, what.cached);
    const auto make = [&]<class Model>(std::type_identity<Model>) {
        const llama::model_weights mine = std::move(weights);  // for as long as they are copied
        return Model(machine, what.config, mine, what.encoding, {.measures = true});
    };
    outcome found = run_job(
        what, cache, [&] { return make(std::type_identity<llama::device_stack<llama::cuda_machine>>{}); },
        [&] { return make(std::type_identity<llama::device_model<llama::cuda_machine>>{}); });
    found.peak_memory_bytes = machine.most_bytes_held();
    return found;
}

}  // namespace giraffe
