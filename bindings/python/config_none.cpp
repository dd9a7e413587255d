// Replacement of config.cpp without nlohmann/json: its functions throw.

#include <pybind11/pybind11.h>

#include <ropewalk/core/error.hpp>

#include "bindings.hpp"

namespace ropewalk::python {

void bind_config(py::module_& m) {
    m.attr("reads_config") = false;
    for (const char* name :
         {"encoding_from_config", "encoding_to_config", "encoding_to_vllm", "encoding_to_llama_cpp"}) {
        m.def(name, [](const py::args&) {
            detail::fail(
                "this build cannot read or write config.json: it was compiled without nlohmann/json "
                "(ROPEWALK_JSON=OFF); install that package and build again");
        });
    }
}

}  // namespace ropewalk::python
