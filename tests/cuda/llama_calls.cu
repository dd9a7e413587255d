// The kernels of a Llama's layers, executed by a device.
#include "llama_calls.hpp"

#include <ropewalk/llama/gpu/device.cuh>

namespace gpu = ropewalk::llama::gpu;

namespace device {

void llama_calls::rms_norm(const matrix_view& x, const matrix_view& weight, double epsilon, const matrix_view& y,
                           const options& with) {
    gpu::rms_norm(x, weight, epsilon, y, with);
}
void llama_calls::silu_multiply(const matrix_view& gate, const matrix_view& up, const matrix_view& out,
                                const options& with) {
    gpu::silu_multiply(gate, up, out, with);
}
void llama_calls::attend(const ropewalk::tensor& q, const ropewalk::tensor& out, const ropewalk::gpu::kv_cache& cache,
                         const sequences& batch, double scale, std::int64_t splits, const gpu::workspace& space,
                         const options& with) {
    gpu::attend(q, out, cache, batch, scale, splits, space, with);
}
void llama_calls::advance(const sequences& batch, std::int64_t tokens, const ropewalk::gpu::cache_tensor& cache,
                          std::int32_t* past, const options& with) {
    gpu::advance(batch, tokens, cache, past, with);
}

}  // namespace device
