#include "cuda.hpp"

#include <cstring>
#include <utility>

#include <ropewalk/dispatch.hpp>
#include "arguments.hpp"
#include "cuda/interface.hpp"
#include "torch.hpp"

namespace ropewalk::python {

namespace {

const cuda::device_functions& functions_of(const py::module_& module) {
    const py::object capsule = module.attr("interface");
    const auto* const functions =
        static_cast<const cuda::device_functions*>(PyCapsule_GetPointer(capsule.ptr(), cuda::capsule_name));
    if (functions == nullptr) throw py::error_already_set();
    RW_EXPECTS(functions->version == cuda::interface_version && functions->plan_bytes == cuda::plan_bytes,
               "ropewalk._cuda is of another build (interface {} of {} bytes, expected {} of {}); install ropewalk "
               "again",
               functions->version, functions->plan_bytes, cuda::interface_version, cuda::plan_bytes);
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
    PyObject* const raw_stream = loaded_torch()->raw_stream;
    const py::object stream =
        raw_stream != nullptr
            ? call_with(raw_stream, py::int_(like.device))
            : py::module_::import("torch").attr("cuda").attr("current_stream")(like.device).attr("cuda_stream");
    return reinterpret_cast<CUstream_st*>(stream.cast<std::uintptr_t>());
}

/// Replaces the positions by those that the encoding draws, if it draws any, in a copy on the device. Returns the owner
/// of the copy.
array draw_on_device(const array& like, const Encoding& encoding, const tensor& t, positions& value) {
    if (!encoding.draw_positions) return {};
    RW_EXPECTS(like.origin == array::library::torch,
               "'{}' draws its positions on the host, and only PyTorch can copy them to {}", encoding.expression,
               device_name(like));
    static const fixed_position none;
    const positions indices = std::exchange(value, {});
    value.source = positions::kind::fixed;
    value.data = &none;
    value.rows = t.batch, value.count = value.stride_row = t.tokens;
    if (t.batch * t.tokens == 0) return {};
    const auto drawn = dispatch::draw_positions(encoding, indices, t.batch, t.tokens);
    const torch_module& torch = *loaded_torch();
    const py::object on_host = py::handle(torch.empty)(
        py::make_tuple(t.batch, t.tokens), py::arg("dtype") = py::handle(torch.int64), py::arg("device") = "cpu");
    std::memcpy(torch_data(on_host), drawn.data(), drawn.size() * sizeof(fixed_position));
    array copy = copy_to_device(on_host, like, "positions");
    value.data = copy.data;
    return copy;
}

/// Calls launch(module, device, options, failure) without the GIL, and throws its failure.
template <class Launch>
void call_module(const array& like, const Launch& launch) {
    const cuda::device_functions& module = module_for(like);
    gpu::options options;
    options.stream = current_stream(like);
    // PyTorch knows the device of its tensors; other arrays are checked.
    options.check_pointers = like.origin != array::library::torch;
    cuda::failure failure;
    const py::gil_scoped_release released;
    gpu::device_shape shape;
    if (!module.shape(like.device, shape, failure) || !launch(module, shape, options, failure))
        throw error(failure.text);
}

/// Plans a rotation and, unless `only_plans`, runs it.
void plan_and_run(const array& like, rotate_args args, bool only_plans) {
    (void)module_for(like);
    const array target_owner = draw_on_device(like, *args.target, args.any(), args.target_positions);
    array source_owner;
    if (args.source != nullptr) source_owner = draw_on_device(like, *args.source, args.any(), args.source_positions);
    call_module(like, [&](const cuda::device_functions& module, const gpu::device_shape& shape,
                          const gpu::options& options, cuda::failure& failure) {
        const gpu::launch_plan plan = gpu::make_plan(args, shape);
        return only_plans || module.run(args.layout, plan, like.device, options, failure);
    });
}

}  // namespace

void run_on_device(const array& like, rotate_args args) { plan_and_run(like, args, false); }

void check_on_device(const array& like, rotate_args args) { plan_and_run(like, args, true); }

void run_fused_on_device(const array& like, fused_args args) {
    (void)module_for(like);
    rotate_args& rotation = args.rotation;
    const array owner = draw_on_device(like, *rotation.target, rotation.any(), rotation.target_positions);
    call_module(like, [&](const cuda::device_functions& module, const gpu::device_shape& shape,
                          const gpu::options& options, cuda::failure& failure) {
        const gpu::fused_plan plan = gpu::make_fused_plan(args, shape);
        return module.run_fused(rotation.layout, plan, like.device, options, failure);
    });
}

void run_rerotate_cache_on_device(const array& like, rerotate_cache_args args) {
    (void)module_for(like);
    tensor tokens;
    tokens.batch = args.at.batch, tokens.tokens = args.at.tokens;
    const array target_owner = draw_on_device(like, *args.target, tokens, args.target_positions);
    const array source_owner = draw_on_device(like, *args.source, tokens, args.source_positions);
    call_module(like, [&](const cuda::device_functions& module, const gpu::device_shape& shape,
                          const gpu::options& options, cuda::failure& failure) {
        const gpu::rerotate_cache_plan plan = gpu::make_rerotate_cache_plan(args, shape);
        return module.run_rerotate_cache(args.layout, plan, like.device, options, failure);
    });
}

}  // namespace ropewalk::python
