#include "cuda.hpp"

#include <cstring>

#include "cuda/interface.hpp"
#include "dispatch/dispatch.hpp"

namespace ropewalk::python {

namespace {

const cuda::device_functions& functions_of(const py::module_& module) {
    const py::object capsule = module.attr("interface");
    const auto* const functions =
        static_cast<const cuda::device_functions*>(PyCapsule_GetPointer(capsule.ptr(), cuda::capsule_name));
    if (functions == nullptr) throw py::error_already_set();
    RW_EXPECTS(functions->version == cuda::interface_version && functions->plan_bytes == sizeof(gpu::rotate_plan),
               "ropewalk._cuda is of another build (interface {} of {} bytes, expected {} of {}); install ropewalk "
               "again",
               functions->version, functions->plan_bytes, cuda::interface_version, sizeof(gpu::rotate_plan));
    return *functions;
}

const cuda::device_functions& module_for(const array& like) {
    static const cuda::device_functions* loaded = nullptr;
    if (loaded != nullptr) return *loaded;
    try {
        loaded = &functions_of(py::module_::import("ropewalk._cuda"));
    } catch (py::error_already_set& problem) {
        if (!problem.matches(PyExc_ImportError)) throw;
        detail::fail(
            "q or k is on {}, but this ropewalk was built without CUDA ({}); install nvcc (on PATH, or "
            "CUDACXX=/path/to/nvcc) and run `pip install . --config-settings=cmake.define.ROPEWALK_BUILD_CUDA=ON` in "
            "the sources, or pass q.cpu()",
            device_name(like), std::string(py::str(problem.value())));
    }
    return *loaded;
}

/// The stream that PyTorch's own kernels would be launched on.
CUstream_st* current_stream(const array& like) {
    if (like.origin != array::library::torch) return nullptr;
    const py::object stream = py::module_::import("torch").attr("cuda").attr("current_stream")(like.device);
    return reinterpret_cast<CUstream_st*>(stream.attr("cuda_stream").cast<std::uintptr_t>());
}

/// Launches the plan that `make_plan(options, shape)` returns.
template <class MakePlan>
void launch(const array& like, layout_kind layout, gpu::options options, const MakePlan& make_plan) {
    const cuda::device_functions& module = module_for(like);
    options.stream = current_stream(like);
    // PyTorch knows the device of its tensors; other arrays are checked.
    options.check_pointers = like.origin != array::library::torch;
    cuda::failure failure;
    const py::gil_scoped_release released;
    gpu::device_shape shape;
    if (!module.shape(like.device, shape, failure)) throw error(failure.text);
    const gpu::rotate_plan plan = make_plan(options, shape);
    if (!module.run(layout, plan, like.device, options, failure)) throw error(failure.text);
}

/// Positions for the kernels, with the array that keeps them alive.
struct device_positions {
    positions value;
    array source;

    /// The caller's positions, or a copy on the device of those that the encoding draws for the tokens of `t`.
    device_positions(const array& like, const Encoding& encoding, const positions& given, const tensor& t)
        : value(given) {
        if (!encoding.draw_positions) return;
        RW_EXPECTS(like.origin == array::library::torch,
                   "'{}' draws its positions on the host, and only PyTorch can copy them to {}", encoding.expression,
                   device_name(like));
        static const fixed_position none;
        value = {};
        value.source = positions::kind::fixed;
        value.data = &none;
        value.rows = t.batch, value.count = value.stride_row = t.tokens;
        if (t.batch * t.tokens == 0) return;
        const auto numbers = dispatch::draw_positions(encoding, given, t.batch, t.tokens);
        const torch_module& torch = *loaded_torch();
        const py::object copy = py::handle(torch.empty)(
            py::make_tuple(t.batch, t.tokens), py::arg("dtype") = py::handle(torch.int64), py::arg("device") = "cpu");
        std::memcpy(torch_data(copy), numbers.data(), numbers.size() * sizeof(fixed_position));
        source = copy_to_device(copy, like, "positions");
        value.data = source.data;
    }
};

}  // namespace

void rotate_on_device(const array& like, const tensor& q, const tensor& k, const tensor& q_out, const tensor& k_out,
                      const Encoding& encoding, const token_positions& where, direction direction,
                      const cos_sin_table& table) {
    module_for(like);
    const device_positions moved(like, encoding, where.value, q.exists() ? q : k);
    const layout_kind layout = *encoding.geometry.layout;
    gpu::options options;
    options.direction = direction, options.table = table;
    launch(like, layout, options, [&](const gpu::options& complete, const gpu::device_shape& shape) {
        return gpu::make_plan(layout, q, k, q_out, k_out, encoding, moved.value, complete, shape);
    });
}

void rerotate_on_device(const array& like, const tensor& k, const Encoding& source,
                        const token_positions& source_positions, const Encoding& target,
                        const token_positions& target_positions) {
    module_for(like);
    const device_positions before(like, source, source_positions.value, k);
    const device_positions after(like, target, target_positions.value, k);
    const layout_kind layout = *target.geometry.layout;
    launch(like, layout, {}, [&](const gpu::options& options, const gpu::device_shape& shape) {
        return gpu::make_rerotation_plan(layout, k, k, source, before.value, target, after.value, options, shape);
    });
}

}  // namespace ropewalk::python
