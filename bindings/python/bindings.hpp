// Functions that fill the module ropewalk._ropewalk.
#pragma once

#include <span>
#include <vector>

#include <pybind11/pybind11.h>

#include <ropewalk/policy/expression.hpp>

namespace ropewalk::python {

namespace py = pybind11;

void bind_policies(py::module_& m);
void bind_encoding(py::module_& m);
void bind_config(py::module_& m);
void bind_rotate(py::module_& m);
void bind_fused(py::module_& m);
void bind_rerotate_cache(py::module_& m);
void bind_score(py::module_& m);
void bind_xla(py::module_& m);

/// The policies of a Python object: an expression, or one of the policy objects.
std::vector<any_policy> as_policies(py::handle object);

/// The Python object of policies: of the policy's own class if there is only one.
py::object policy_object(std::vector<any_policy> chain);

}  // namespace ropewalk::python
