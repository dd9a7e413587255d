// The module ropewalk._ropewalk: a thin layer over the dispatch library.

#include <ropewalk/dispatch.hpp>
#include "bindings.hpp"

namespace {

namespace py = pybind11;

/// Makes errors and classes members of the package, for pickle, repr and messages.
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
        "An argument is wrong. The message holds its value, and nothing has been written.";
    rp::bind_policies(m);
    rp::bind_encoding(m);
    rp::bind_config(m);
    rp::bind_rotate(m);
    rp::bind_score(m);
    rp::bind_xla(m);
    m.def(
        "instruction_set", [] { return std::string(ropewalk::dispatch::instruction_set()); },
        "Return the instruction set of the kernels: the widest one of this machine, or the value of the environment "
        "variable ROPEWALK_ISA.");
    m.def(
        "tuning_profile", [] { return std::string(ropewalk::dispatch::tuning_profile().name); },
        "Return the name of the tuning profile in use: that of the processor, or the one that the environment variable "
        "ROPEWALK_PROFILE names.");
    m.def(
        "instruction_sets",
        [] {
            py::list names;
            for (const auto name : ropewalk::dispatch::instruction_sets()) names.append(std::string(name));
            return names;
        },
        "Return the instruction sets that this machine can run, the widest first.");
    move_to_package(m);
}
