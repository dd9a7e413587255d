// The text of Hugging Face configurations. JSON is compiled in this file only.

#include <pybind11/pybind11.h>

#include <ropewalk/io/hf_config.hpp>
#include <ropewalk/io/hf_write.hpp>

#include "arguments.hpp"
#include "bindings.hpp"

namespace ropewalk::python {

namespace {

std::string text_or_none(py::handle object, const char* name) {
    return object.is_none() ? std::string() : std::string(as_text(object, name));
}

/// The policy that replaces that of the configuration. Empty for None.
std::string expression_of(py::handle policy) {
    if (policy.is_none()) return {};
    std::string text = py::isinstance<py::str>(policy) ? std::string(as_text(policy, "policy"))
                                                       : std::string(py::str(policy_object(as_policies(policy))));
    RW_EXPECTS(!text.empty(), "policy is empty; pass None to keep that of the configuration");
    return text;
}

}  // namespace

void bind_config(py::module_& m) {
    m.attr("reads_config") = true;
    // `source` is the name of the text in messages: a path, or "the configuration".
    m.def("encoding_from_config", [](const std::string& text, const std::string& source, py::handle layer_type,
                                     py::handle sequence_length, py::handle layout, py::handle policy) {
        config_choices choices{text_or_none(layer_type, "layer_type"), 0, {}, expression_of(policy)};
        if (!sequence_length.is_none()) choices.sequence_length = as_int64(sequence_length, "sequence_length");
        if (!layout.is_none()) choices.layout = as_layout(text_or_none(layout, "layout"));
        const py::gil_scoped_release released;
        return encoding_from_config(parse_config(text, source), choices);
    });
    m.def("encoding_to_config", [](py::handle encoding) { return to_hf_config(as_encoding(encoding)).dump(); });
    m.def("encoding_to_vllm", [](py::handle encoding) { return to_vllm_overrides(as_encoding(encoding)).dump(); });
    m.def("encoding_to_llama_cpp", [](py::handle encoding) { return to_llama_cpp_flags(as_encoding(encoding)); });
}

}  // namespace ropewalk::python
