// The fused kernels' bodies, run by the host one warp after the other.
#include "calls.hpp"

#include <ropewalk/gpu/fused_body.hpp>
#include <ropewalk/gpu/fused_plan.hpp>

namespace rw = ropewalk;
namespace gpu = ropewalk::gpu;

namespace device {

/// Few and small multiprocessors: a thread of the small tensors of tests so has several heads.
static constexpr gpu::device_shape shape{4, 128};

template <class T, class L>
void fused_calls<T, L>::run(const tensors& in, const tensors& out, const gpu::fusion& with,
                            const rw::Encoding& encoding, const rw::positions& where, const gpu::options& chosen) {
    const auto plan = gpu::make_fused_plan<T>(
        rw::kind_of<L>, {view_of<const T>(in.q), view_of<const T>(in.k), view_of<const T>(in.v)},
        {view_of<T>(out.q), view_of<T>(out.k), view_of<T>(out.v)}, with, encoding, where, chosen, shape);
    gpu::with_fused_kernel<T>(plan, [&]<class Rates>(std::type_identity<Rates>, auto bytes) {
        const auto job = gpu::kernel_params<Rates>(plan);
        const gpu::fused_body<T, L, bytes(), Rates> body{job};
        for (std::int64_t i = 0; i < plan.shape.threads; i += gpu::host_warp::width)
            gpu::run_lanes<gpu::host_warp>(body, i);
    });
}

template struct fused_calls<float, rw::half_split>;
template struct fused_calls<float, rw::interleaved>;
template struct fused_calls<rw::f16, rw::half_split>;
template struct fused_calls<rw::f16, rw::interleaved>;
template struct fused_calls<rw::bf16, rw::half_split>;
template struct fused_calls<rw::bf16, rw::interleaved>;

}  // namespace device
