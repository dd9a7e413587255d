// The module ropewalk._ropewalk: a thin layer over the runtime.

#include "bindings.hpp"
#include "dispatch/dispatch.hpp"

namespace {

namespace py = pybind11;

/// Errors and classes belong to the package, not to the module inside it: for pickle, repr and messages.
void move_to_package(const py::module_& m) {
    for (const auto& item : py::reinterpret_borrow<py::dict>(m.attr("__dict__"))) {
        if (PyType_Check(item.second.ptr()) != 0) py::setattr(item.second, "__module__", py::str("ropewalk"));
    }
}

}  // namespace

PYBIND11_MODULE(_ropewalk, m) {
    namespace rp = ropewalk::python;
    m.attr("__version__") = ROPEWALK_VERSION;
    py::register_exception<ropewalk::error>(m, "Error", PyExc_ValueError).doc() =
        "Wrong arguments, with the values in the message. Nothing has been written.";
    rp::bind_policies(m);
    rp::bind_encoding(m);
    rp::bind_config(m);
    rp::bind_rotate(m);
    rp::bind_score(m);
    m.def(
        "instruction_set", [] { return std::string(ropewalk::dispatch::instruction_set()); },
        "The kernels in use: the widest that this machine has, or what the environment variable ROPEWALK_ISA names.");
    m.def(
        "instruction_sets",
        [] {
            py::list names;
            for (const auto name : ropewalk::dispatch::instruction_sets()) names.append(std::string(name));
            return names;
        },
        "The kernels that this machine can run, the widest first.");
    move_to_package(m);
}
