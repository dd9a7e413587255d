// The functions of the interface: they switch devices, turn errors into text and select the element type.
#include <cstring>

#include <ropewalk/gpu/launch.cuh>

#include "interface.hpp"
#include "kernels.hpp"

namespace ropewalk::cuda {

namespace {

/// Makes a device the current one during its lifetime. For most callers it already is.
class device_guard {
public:
    explicit device_guard(int device) : before_(gpu::detail::current_device()), switched_(device != before_) {
        if (switched_) gpu::detail::expect_success(cudaSetDevice(device), detail::format("device {}", device));
    }
    ~device_guard() {
        if (switched_) (void)cudaSetDevice(before_);
    }
    device_guard(const device_guard&) = delete;
    device_guard& operator=(const device_guard&) = delete;

private:
    int before_;
    bool switched_;
};

/// Runs f and copies the message of an exception.
template <class F>
bool without_exceptions(failure& failure, const F& f) noexcept {
    try {
        f();
        return true;
    } catch (const std::exception& problem) {
        std::strncpy(failure.text, problem.what(), sizeof failure.text - 1);
        failure.text[sizeof failure.text - 1] = '\0';
        return false;
    }
}

bool shape(int device, gpu::device_shape& shape, failure& failure) noexcept {
    return without_exceptions(failure, [&] { shape = gpu::detail::shape_of_device(device); });
}

/// Launches the plan of a call on elements of a type.
template <class Plan>
bool launch_on(element_type type, layout_kind layout, const Plan& plan, int device, const gpu::options& options,
               failure& failure) noexcept {
    return without_exceptions(failure, [&] {
        const device_guard guard(device);
        switch (type) {
            case element_type::f32:
                return launch<float>(layout, plan, device, options);
            case element_type::f16:
                return launch<f16>(layout, plan, device, options);
            case element_type::bf16:
                return launch<bf16>(layout, plan, device, options);
        }
    });
}

bool run(layout_kind layout, const gpu::launch_plan& plan, int device, const gpu::options& options,
         failure& failure) noexcept {
    return launch_on(plan.kernel.rotation.any().type, layout, plan, device, options, failure);
}

bool run_fused(layout_kind layout, const gpu::fused_plan& plan, int device, const gpu::options& options,
               failure& failure) noexcept {
    return launch_on(plan.kernel.rotation.any().type, layout, plan, device, options, failure);
}

bool run_rerotate_cache(layout_kind layout, const gpu::rerotate_cache_plan& plan, int device,
                        const gpu::options& options, failure& failure) noexcept {
    return without_exceptions(failure, [&] {
        const device_guard guard(device);
        launch(layout, plan, device, options);
    });
}

}  // namespace

const device_functions functions{interface_version, plan_bytes, shape, run, run_fused, run_rerotate_cache};

}  // namespace ropewalk::cuda
