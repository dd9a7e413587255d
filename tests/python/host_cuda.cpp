// Stand-in for ropewalk._cuda on the host: the same interface, whose launches run the threads one after another. The
// path from the arguments in Python to a launch thus runs without a device.
#include "cuda/interface.hpp"

#include <ropewalk/gpu/fused_body.hpp>
#include <ropewalk/gpu/rerotate_cache_body.hpp>

#include "gpu/host.hpp"

namespace {

namespace rw = ropewalk;

bool shape(int, rw::gpu::device_shape& shape, rw::cuda::failure&) noexcept {
    shape = {4, 64};
    return true;
}

bool run(rw::layout_kind layout, const rw::gpu::launch_plan& plan, int, const rw::gpu::options&,
         rw::cuda::failure&) noexcept {
    test::memory_log unused;
    test::run_on_host(layout, plan, unused);
    return true;
}

template <class T, class L>
void run_warps(const rw::gpu::fused_plan& plan) {
    rw::gpu::with_fused_kernel<T>(plan, [&]<class Kind>(Kind) {
        const auto params = rw::gpu::kernel_params<typename Kind::Rates>(plan);
        const rw::gpu::fused_body<T, L, Kind::bytes, typename Kind::Rates, Kind::parts> body{params};
        for (std::int64_t index = 0; index < params.threads; index += rw::gpu::warp_lanes)
            rw::gpu::run_lanes<rw::gpu::host_warp>(body, index);
    });
}

template <class T>
void run_warps(rw::layout_kind layout, const rw::gpu::fused_plan& plan) {
    if (layout == rw::layout_kind::half_split) return run_warps<T, rw::half_split>(plan);
    run_warps<T, rw::interleaved>(plan);
}

bool run_fused(rw::layout_kind layout, const rw::gpu::fused_plan& plan, int, const rw::gpu::options&,
               rw::cuda::failure&) noexcept {
    const rw::element_type type = plan.kernel.rotation.any().type;
    if (type == rw::element_type::f32) return run_warps<float>(layout, plan), true;
    return type == rw::element_type::f16 ? run_warps<rw::f16>(layout, plan) : run_warps<rw::bf16>(layout, plan), true;
}

template <class L>
void run_warps(const rw::gpu::rerotate_cache_plan& plan) {
    const auto params = rw::gpu::kernel_params(plan);
    rw::gpu::with_rerotate_cache_kernel(plan, [&](auto size, auto wide) {
        const rw::gpu::rerotate_cache_body<size(), L, wide(), rw::gpu::rerotate_cache_rates> body{params};
        for (std::int64_t index = 0; index < params.threads; index += rw::gpu::warp_lanes)
            rw::gpu::run_lanes<rw::gpu::host_warp>(body, index);
    });
}

bool run_rerotate_cache(rw::layout_kind layout, const rw::gpu::rerotate_cache_plan& plan, int, const rw::gpu::options&,
                        rw::cuda::failure&) noexcept {
    if (layout == rw::layout_kind::half_split) return run_warps<rw::half_split>(plan), true;
    return run_warps<rw::interleaved>(plan), true;
}

constexpr rw::cuda::device_functions functions{rw::cuda::interface_version, rw::cuda::plan_bytes, shape, run, run_fused,
                                               run_rerotate_cache};

}  // namespace

extern "C" const void* host_cuda() { return &functions; }
