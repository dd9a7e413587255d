// Example of code that uses the kernels of the Llama stack. tests/house/nvcc.py compiles it for several architectures.
#include <ropewalk/llama/gpu/device.cuh>

namespace gpu = ropewalk::llama::gpu;

void layer(const gpu::matrix_view& x, const gpu::matrix_view& weights, const gpu::matrix_view& y,
           const ropewalk::tensor& q, const gpu::kv_cache& cache, const gpu::sequences& batch,
           const gpu::workspace& space, const gpu::options& options) {
    gpu::rms_norm(x, weights, 1e-5, y, options);
    gpu::attend(q, q, cache, batch, 0.088, 4, space, options);
    gpu::silu_multiply(x, y, y, options);
}
