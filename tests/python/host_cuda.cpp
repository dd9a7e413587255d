// What ropewalk._cuda is, on the host: the same interface, whose launches run every thread one after the other. So the
// way from Python's arguments to a launch runs where there is no device.
#include "cuda/interface.hpp"

#include "gpu/host.hpp"

namespace {

namespace rw = ropewalk;

bool shape(int, rw::gpu::device_shape& shape, rw::cuda::failure&) noexcept {
    shape = {4, 64};
    return true;
}

bool run(rw::layout_kind layout, const rw::gpu::rotate_plan& plan, int, const rw::gpu::options&,
         rw::cuda::failure&) noexcept {
    test::memory_log nobody_looks;
    test::run_on_host(layout, plan, nobody_looks);
    return true;
}

constexpr rw::cuda::device_functions functions{rw::cuda::interface_version, sizeof(rw::gpu::rotate_plan), shape, run};

}  // namespace

extern "C" const void* host_cuda() { return &functions; }
