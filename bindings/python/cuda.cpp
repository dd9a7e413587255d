#include "cuda.hpp"

#include <cstring>

#include "cuda/interface.hpp"
#include "dispatch/dispatch.hpp"

namespace ropewalk::python {

namespace {

const cuda::device_functions& open(const py::module_& module) {
    const py::object capsule = module.attr("interface");
    const auto* const found =
        static_cast<const cuda::device_functions*>(PyCapsule_GetPointer(capsule.ptr(), cuda::capsule_name));
    if (found == nullptr) throw py::error_already_set();
    RW_EXPECTS(
        found->version == cuda::interface_version && found->plan_bytes == sizeof(gpu::launch_plan),
        "ropewalk._cuda is of another build (interface {} of {} bytes, expected {} of {}): install ropewalk again",
        found->version, found->plan_bytes, cuda::interface_version, sizeof(gpu::launch_plan));
    return *found;
}

const cuda::device_functions& module_for(const array& like) {
    static const cuda::device_functions* loaded = nullptr;
    if (loaded != nullptr) return *loaded;
    try {
        loaded = &open(py::module_::import("ropewalk._cuda"));
    } catch (py::error_already_set& problem) {
        if (!problem.matches(PyExc_ImportError)) throw;
        detail::fail(
            "q or k is on {}, and this ropewalk was built without CUDA ({}). Where nvcc is found (on PATH, or by "
            "CUDACXX=/path/to/nvcc), an installation from the sources has it: pip install . "
            "--config-settings=cmake.define.ROPEWALK_BUILD_CUDA=ON. Until then: q.cpu()",
            place_of(like), std::string(py::str(problem.value())));
    }
    return *loaded;
}

/// The stream that torch's own kernels would be launched on.
CUstream_st* current_stream(const array& like) {
    if (like.origin != array::library::torch) return nullptr;
    static PyObject* raw = nullptr;  // held for good
    if (raw == nullptr) {
        const py::module_ torch = py::module_::import("torch");
        const py::object of_device = py::getattr(torch.attr("_C"), "_cuda_getCurrentRawStream", py::none());
        if (of_device.is_none()) {
            const auto stream = torch.attr("cuda").attr("current_stream")(like.device);
            return reinterpret_cast<CUstream_st*>(stream.attr("cuda_stream").cast<std::uintptr_t>());
        }
        raw = of_device.inc_ref().ptr();
    }
    return reinterpret_cast<CUstream_st*>(py::handle(raw)(like.device).cast<std::uintptr_t>());
}

/// Launches what `make(options, shape)` plans.
template <class Make>
void launch(const array& like, layout_kind layout, gpu::options chosen, const Make& make) {
    const cuda::device_functions& module = module_for(like);
    chosen.stream = current_stream(like);
    // torch knows where its tensors are; others are asked for.
    chosen.check_pointers = like.origin != array::library::torch;
    cuda::failure why;
    const py::gil_scoped_release released;
    gpu::device_shape shape;
    if (!module.shape(like.device, shape, why)) throw error(why.text);
    const gpu::launch_plan plan = make(chosen, shape);
    if (!module.run(layout, plan, like.device, chosen, why)) throw error(why.text);
}

/// Positions as the kernels take them, with what keeps them alive.
struct placed {
    positions where;
    array source;
};

/// The caller's positions; or, where the encoding draws them, its numbers for the tokens of `t`, copied to the device.
placed place(const array& like, const Encoding& encoding, const positions& where, const tensor& t) {
    if (!encoding.draw_positions) return {where, {}};
    RW_EXPECTS(like.origin == array::library::torch,
               "'{}' draws its positions on the host, and torch alone can take them to {}", encoding.expression,
               place_of(like));
    static const fixed_position none;
    placed made;
    made.where.source = positions::kind::fixed;
    made.where.data = &none;
    made.where.rows = t.batch, made.where.count = made.where.stride_row = t.tokens;
    if (t.batch * t.tokens == 0) return made;
    const auto numbers = dispatch::draw_positions(encoding, where, t.batch, t.tokens);
    const torch_module& torch = *loaded_torch();
    const py::object copy = py::handle(torch.empty)(
        py::make_tuple(t.batch, t.tokens), py::arg("dtype") = py::handle(torch.int64), py::arg("device") = "cpu");
    std::memcpy(torch_data(copy), numbers.data(), numbers.size() * sizeof(fixed_position));
    made.source = copy_beside(copy, like, "positions");
    made.where.data = made.source.data;
    return made;
}

}  // namespace

device_call::device_call(const array& where) : like_(where) { module_for(where); }

void device_call::rotate(const tensor& q, const tensor& k, const tensor& q_out, const tensor& k_out,
                         const Encoding& encoding, const token_positions& where, direction direction,
                         const cos_sin_table& table) const {
    const placed at = place(like_, encoding, where.where, q.exists() ? q : k);
    const layout_kind layout = *encoding.geometry.layout;
    gpu::options chosen;
    chosen.direction = direction, chosen.table = table;
    launch(like_, layout, chosen, [&](const gpu::options& options, const gpu::device_shape& shape) {
        return gpu::make_plan(layout, q, k, q_out, k_out, encoding, at.where, options, shape);
    });
}

void device_call::rerotate(const tensor& k, const Encoding& from, const token_positions& from_where, const Encoding& to,
                           const token_positions& to_where) const {
    const placed before = place(like_, from, from_where.where, k), after = place(like_, to, to_where.where, k);
    const layout_kind layout = *to.geometry.layout;
    launch(like_, layout, {}, [&](const gpu::options& options, const gpu::device_shape& shape) {
        return gpu::make_rerotation_plan(layout, k, k, from, before.where, to, after.where, options, shape);
    });
}

}  // namespace ropewalk::python
