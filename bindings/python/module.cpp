// The module ropewalk._ropewalk: a thin layer over the dispatch library.

#include <exception>
#include <string_view>
#include <utility>

#include <ropewalk/dispatch.hpp>
#include "bindings.hpp"

namespace {

namespace py = pybind11;

/// Raises ropewalk::error as ropewalk.Error. A message may have part of a character where it shows part of a text.
void translate_errors(py::module_& m) {
    static PyObject* type = nullptr;  // never released
    const py::exception<ropewalk::error> error(m, "Error", PyExc_ValueError);
    error.attr("__doc__") = "An argument is wrong. The message holds its value, and nothing has been written.";
    type = py::object(error).release().ptr();
    py::register_local_exception_translator([](std::exception_ptr thrown) {
        try {
            std::rethrow_exception(std::move(thrown));
        } catch (const ropewalk::error& problem) {
            const std::string_view message = problem.what();
            const auto text = py::reinterpret_steal<py::object>(
                PyUnicode_DecodeUTF8(message.data(), static_cast<Py_ssize_t>(message.size()), "backslashreplace"));
            if (text) PyErr_SetObject(type, text.ptr());
        }
    });
}

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
    translate_errors(m);
    rp::bind_policies(m);
    rp::bind_encoding(m);
    rp::bind_config(m);
    rp::bind_rotate(m);
    rp::bind_fused(m);
    rp::bind_rerotate_cache(m);
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
