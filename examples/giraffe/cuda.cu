#include "cuda.hpp"

#include <ropewalk/llama/cuda_backend.cuh>
#include <ropewalk/llama/device_llama.hpp>

namespace giraffe {

std::string cuda_device_name() { return attention::cuda_machine().name(); }

outcome run_on_cuda(const job& what, attention::llama_weights weights) {
    attention::cuda_machine machine;
    attention::device_cache cache(machine, what.config, what.cached);
    const auto make = [&]<class Model>(std::type_identity<Model>) {
        const attention::llama_weights mine = std::move(weights);  // for as long as they are copied
        return Model(machine, what.config, mine, what.encoding, {.measures = true});
    };
    outcome found = run_job(
        what, cache, [&] { return make(std::type_identity<attention::device_stack<attention::cuda_machine>>{}); },
        [&] { return make(std::type_identity<attention::device_llama<attention::cuda_machine>>{}); });
    found.peak_memory_bytes = machine.most_bytes_held();
    return found;
}

}  // namespace giraffe
