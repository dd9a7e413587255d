// Stand-in for ropewalk._cuda on the host: the same interface, whose launches run the threads one after another. The
// path from the arguments in Python to a launch thus runs without a device.
#include "cuda/interface.hpp"

#include "gpu/host.hpp"

namespace {

namespace rw = ropewalk;

bool shape(int, rw::gpu::device_shape& shape, rw::cuda::failure&) noexcept {
    shape = {4, 64};
    return true;
}

template <class Plan>
bool run(rw::layout_kind layout, const Plan& plan, int, const rw::gpu::options&, rw::cuda::failure&) noexcept {
    test::memory_log unused;
    test::run_on_host(layout, plan, unused);
    return true;
}

constexpr rw::cuda::device_functions functions{rw::cuda::interface_version, rw::cuda::plan_bytes, shape, run, run, run};

}  // namespace

extern "C" const void* host_cuda() { return &functions; }
