// The functions of the interface: the current device, errors as text, and the kernels of the element type.
#include <cstring>

#include <ropewalk/gpu/launch.cuh>

#include "interface.hpp"
#include "kernels.hpp"

namespace ropewalk::cuda {

namespace {

/// Makes a device the current one for as long as it lives. Most callers have it so already.
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

/// Runs f; what it throws becomes text.
template <class F>
bool without_exceptions(failure& why, const F& f) noexcept {
    try {
        f();
        return true;
    } catch (const std::exception& problem) {
        std::strncpy(why.text, problem.what(), sizeof why.text - 1);
        why.text[sizeof why.text - 1] = '\0';
        return false;
    }
}

bool shape(int device, gpu::device_shape& shape, failure& why) noexcept {
    return without_exceptions(why, [&] { shape = gpu::detail::shape_of_device(device); });
}

bool run(layout_kind layout, const gpu::launch_plan& plan, int device, const gpu::options& chosen,
         failure& why) noexcept {
    return without_exceptions(why, [&] {
        const device_guard here(device);
        switch (plan.kernel.rotation.any().type) {
            case element_type::f32:
                return launch<float>(layout, plan, device, chosen);
            case element_type::f16:
                return launch<f16>(layout, plan, device, chosen);
            case element_type::bf16:
                return launch<bf16>(layout, plan, device, chosen);
        }
    });
}

}  // namespace

const device_functions functions{interface_version, sizeof(gpu::launch_plan), shape, run};

}  // namespace ropewalk::cuda
