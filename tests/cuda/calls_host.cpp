// The kernels' bodies, run by the host one thread after the other.
#include "calls.hpp"

#include <ropewalk/gpu/plan.hpp>
#include <ropewalk/gpu/rotate_body.hpp>

namespace rw = ropewalk;
namespace gpu = ropewalk::gpu;

namespace device {

namespace {

/// Few and small multiprocessors: a thread of the small tensors of tests so has several heads.
constexpr gpu::device_shape shape{4, 128};

template <class T, class L>
void run(const gpu::launch_plan& plan) {
    gpu::with_rates(plan.kernel.rotation, [&]<class Rates>(std::type_identity<Rates>) {
        const auto job = gpu::kernel_params<Rates>(plan);
        gpu::with_access<T>(plan.shape.bytes, [&](auto bytes) {
            for (std::int64_t i = 0; i < plan.shape.threads; ++i) gpu::rotate_body<T, L, bytes(), Rates>(job, i);
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

template struct calls<float, rw::half_split>;
template struct calls<float, rw::interleaved>;
template struct calls<rw::f16, rw::half_split>;
template struct calls<rw::f16, rw::interleaved>;
template struct calls<rw::bf16, rw::half_split>;
template struct calls<rw::bf16, rw::interleaved>;

}  // namespace device
