// The attention kernels, on the device.
#include "llama_calls.hpp"

#include <ropewalk/llama/gpu/device.cuh>

namespace gpu = ropewalk::gpu;
namespace llama = ropewalk::llama::gpu;

namespace device {

void llama_calls::rms_norm(const matrix_view& x, const matrix_view& weight, double epsilon, const matrix_view& y,
                           const gpu::options& chosen) {
    llama::rms_norm(x, weight, epsilon, y, chosen);
}
void llama_calls::silu_multiply(const matrix_view& gate, const matrix_view& up, const matrix_view& out,
                                const gpu::options& chosen) {
    llama::silu_multiply(gate, up, out, chosen);
}
void llama_calls::attend(const ropewalk::tensor& q, const ropewalk::tensor& out, const gpu::kv_cache& cache,
                         const llama::page_table& pages, const llama::sequences& batch, double scale,
                         std::int64_t splits, const llama::workspace& room, const gpu::options& chosen) {
    llama::attend(q, out, cache, pages, batch, scale, splits, room, chosen);
}
void llama_calls::advance(const llama::sequences& batch, std::int64_t tokens, const gpu::cache_tensor& cache,
                          const llama::page_table& pages, std::int32_t* past, const gpu::options& chosen) {
    llama::advance(batch, tokens, cache, pages, past, chosen);
}

}  // namespace device
