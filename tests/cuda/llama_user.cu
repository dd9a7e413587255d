// What a user of the attention kernels writes, compiled for every architecture by tests/house/nvcc.py.
#include <ropewalk/llama/gpu/device.cuh>

namespace gpu = ropewalk::gpu;
namespace attention = ropewalk::gpu::attention;

void layer(const attention::matrix_view& x, const attention::matrix_view& weights, const attention::matrix_view& y,
           const ropewalk::tensor& q, const gpu::kv_cache& cache, const attention::page_table& pages,
           const attention::sequences& batch, const attention::workspace& room, const gpu::options& chosen) {
    attention::rms_norm(x, weights, 1e-5, y, chosen);
    attention::attend(q, q, cache, pages, batch, 0.088, 4, room, chosen);
    attention::silu_multiply(x, y, y, chosen);
}
