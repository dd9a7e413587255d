// The attention kernels' bodies, run by the host one warp after the other.
#include "llama_calls.hpp"

#include <ropewalk/llama/gpu/gather.hpp>
#include <ropewalk/llama/gpu/norm.hpp>
#include <ropewalk/llama/gpu/silu.hpp>

namespace gpu = ropewalk::gpu;
namespace llama = ropewalk::llama::gpu;

namespace device {

template <class Job>
static void run(const Job& job) {
    with_body(job, [&](auto body) {
        for (std::int64_t index = 0; index < job.threads; index += gpu::warp_lanes)
            body.template run<llama::host_lanes, gpu::plain_access>(job, index);
    });
}

void llama_calls::rms_norm(const matrix_view& x, const matrix_view& weight, double epsilon, const matrix_view& y,
                           const gpu::options& /*chosen*/) {
    run(llama::make_rms_norm(x, weight, epsilon, y));
}
void llama_calls::silu_multiply(const matrix_view& gate, const matrix_view& up, const matrix_view& out,
                                const gpu::options& /*chosen*/) {
    run(llama::make_silu(gate, up, out));
}
void llama_calls::attend(const ropewalk::tensor& q, const ropewalk::tensor& out, const gpu::kv_cache& cache,
                         const llama::page_table& pages, const llama::sequences& batch, double scale,
                         std::int64_t splits, const llama::workspace& room, const gpu::options& /*chosen*/) {
    const auto plan = llama::make_attend(q, out, cache, pages, batch, scale, splits, room);
    run(plan.attend), run(plan.merge);
}
void llama_calls::advance(const llama::sequences& batch, std::int64_t tokens, const gpu::cache_tensor& cache,
                          const llama::page_table& pages, std::int32_t* past, const gpu::options& /*chosen*/) {
    run(llama::make_advance(batch, tokens, cache, pages, past));
}

}  // namespace device
