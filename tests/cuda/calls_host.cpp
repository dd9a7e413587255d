// Bodies of the kernels, executed by the host one thread or one warp after the other.
#include "calls.hpp"

#include <ropewalk/gpu/fused_body.hpp>
#include <ropewalk/gpu/fused_plan.hpp>
#include <ropewalk/gpu/plan.hpp>
#include <ropewalk/gpu/rotate_body.hpp>

namespace rw = ropewalk;
namespace gpu = ropewalk::gpu;

namespace device {

namespace {

/// Few and small multiprocessors, so that a thread has several heads even of the small tensors of tests.
constexpr gpu::device_shape shape{4, 128};

template <class T, class L>
void run(const gpu::launch_plan& plan) {
    gpu::with_rates(plan.kernel.rotation, [&]<class Rates>(std::type_identity<Rates>) {
        const auto params = gpu::kernel_params<Rates>(plan);
        gpu::with_access<T>(plan.shape.bytes, [&](auto bytes) {
            for (std::int64_t i = 0; i < plan.shape.threads; ++i) gpu::rotate_body<T, L, bytes(), Rates>(params, i);
        });
    });
}

}  // namespace

template <class T, class L>
void calls<T, L>::rotate(const tensors& in, const tensors& out, const rw::Encoding& encoding,
                         const rw::positions& where, const gpu::options& chosen) {
    run<T, L>(gpu::make_plan(rw::kind_of<L>, in.q, in.k, out.q, out.k, encoding, where, chosen, shape));
}

template <class T, class L>
void calls<T, L>::rerotate(const rw::tensor& k, const rw::Encoding& from, const rw::positions& from_where,
                           const rw::Encoding& to, const rw::positions& to_where, const gpu::options& chosen) {
    run<T, L>(gpu::make_rerotation_plan(rw::kind_of<L>, k, k, from, from_where, to, to_where, chosen, shape));
}

template <class T, class L>
void fused_calls<T, L>::run(const tensors& in, const tensors& out, const gpu::fusion& with,
                            const rw::Encoding& encoding, const rw::positions& where, const gpu::options& chosen) {
    const auto plan = gpu::make_fused_plan<T>(
        rw::kind_of<L>, {view_of<const T>(in.q), view_of<const T>(in.k), view_of<const T>(in.v)},
        {view_of<T>(out.q), view_of<T>(out.k), view_of<T>(out.v)}, with, encoding, where, chosen, shape);
    gpu::with_fused_kernel<T>(plan, [&]<class Kind>(Kind) {
        const auto params = gpu::kernel_params<typename Kind::Rates>(plan);
        const gpu::fused_body<T, L, Kind::bytes, typename Kind::Rates, Kind::parts> body{params};
        for (std::int64_t i = 0; i < plan.shape.threads; i += gpu::host_warp::width)
            gpu::run_lanes<gpu::host_warp>(body, i);
    });
}

#define INSTANTIATE(type)                              \
    template struct calls<type, rw::half_split>;       \
    template struct calls<type, rw::interleaved>;      \
    template struct fused_calls<type, rw::half_split>; \
    template struct fused_calls<type, rw::interleaved>
INSTANTIATE(float);
INSTANTIATE(rw::f16);
INSTANTIATE(rw::bf16);
#undef INSTANTIATE

}  // namespace device
