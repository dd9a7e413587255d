// What a user of the attention kernels writes, compiled for every architecture by tests/house/nvcc.py.
#include <ropewalk/llama/gpu/device.cuh>

namespace gpu = ropewalk::gpu;
namespace llama = ropewalk::llama::gpu;

void layer(const llama::matrix_view& x, const llama::matrix_view& weights, const llama::matrix_view& y,
           const ropewalk::tensor& q, const gpu::kv_cache& cache, const llama::page_table& pages,
           const llama::sequences& batch, const llama::workspace& room, const gpu::options& chosen) {
    llama::rms_norm(x, weights, 1e-5, y, chosen);
    llama::attend(q, q, cache, pages, batch, 0.088, 4, room, chosen);
    llama::silu_multiply(x, y, y, chosen);
}
