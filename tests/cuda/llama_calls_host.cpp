// The kernels of a Llama's layers, executed by the host warp by warp.
#include "llama_calls.hpp"

#include <ropewalk/llama/gpu/rows.hpp>
#include <ropewalk/llama/gpu/tokens.hpp>

namespace gpu = ropewalk::llama::gpu;

namespace device {

template <class Params>
static void run(const Params& params) {
    with_body(params, [&]<class Body>(std::type_identity<Body>) {
        for (std::int64_t index = 0; index < params.threads; index += gpu::warp_lanes)
            Body::template run<gpu::host_lanes, ropewalk::gpu::plain_access>(params, index);
    });
}

void llama_calls::rms_norm(const matrix_view& x, const matrix_view& weight, double epsilon, const matrix_view& y,
                           const options& /*with*/) {
    run(gpu::make_rms_norm(x, weight, epsilon, y));
}
void llama_calls::silu_multiply(const matrix_view& gate, const matrix_view& up, const matrix_view& out,
                                const options& /*with*/) {
    run(gpu::make_silu(gate, up, out));
}
void llama_calls::attend(const ropewalk::tensor& q, const ropewalk::tensor& out, const ropewalk::gpu::kv_cache& cache,
                         const sequences& batch, double scale, std::int64_t splits, const gpu::workspace& space,
                         const options& /*with*/) {
    const auto plan = gpu::make_attend(q, out, cache, batch, scale, splits, space);
    run(plan.attend), run(plan.merge);
}
void llama_calls::advance(const sequences& batch, std::int64_t tokens, const ropewalk::gpu::cache_tensor& cache,
                          std::int32_t* past, const options& /*with*/) {
    run(gpu::make_advance(batch, tokens, cache, past));
}

}  // namespace device
