// from_config and to_hf_config: the text of a Hugging Face configuration. In a file of its own, so that JSON is
// compiled once.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <ropewalk/io/hf_config.hpp>
#include <ropewalk/io/hf_write.hpp>

#include "arguments.hpp"
#include "bindings.hpp"

namespace ropewalk::python {

void bind_config(py::module_& m) {
    m.attr("reads_config") = true;
    // `source` is what messages call the text: a path, or "the configuration".
    m.def("encoding_from_config",
          [](const std::string& text, const std::string& source, const std::optional<std::string>& layer_type,
             std::optional<std::int64_t> sequence_length, const std::optional<std::string>& layout,
             const std::optional<std::string>& policy) {
              RW_EXPECTS(!policy || !policy->empty(), "policy is empty: None leaves the configuration's own scheme");
              config_choices choices{layer_type.value_or(""), sequence_length.value_or(0), {}, policy.value_or("")};
              if (layout) choices.layout = as_layout(*layout);
              return encoding_from_config(parse_config(text, source), choices);
          });
    m.def("encoding_to_config", [](py::handle encoding) { return to_hf_config(as_encoding(encoding)).dump(); });
}

}  // namespace ropewalk::python
