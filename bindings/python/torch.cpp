#include "torch.hpp"

#include <array>
#include <string>
#include <string_view>
#include <utility>

#include "array.hpp"

namespace ropewalk::python {

namespace {

/// The attribute at the end of a path such as "nn.Parameter"; null, with a Python error, where it is missing.
PyObject* find(PyObject* module, std::string_view path) {
    py::object at = py::reinterpret_borrow<py::object>(module);
    while (!path.empty()) {
        const auto dot = path.find('.');
        PyObject* const next = PyObject_GetAttrString(at.ptr(), std::string(path.substr(0, dot)).c_str());
        if (next == nullptr) return nullptr;
        at = py::reinterpret_steal<py::object>(next);
        path = dot == std::string_view::npos ? std::string_view{} : path.substr(dot + 1);
    }
    return at.release().ptr();
}

/// Null where an attribute is still missing: somebody is importing torch this very moment.
const torch_module* look_up(PyObject* module) {
    torch_module found{};
    const std::array<std::pair<PyObject**, const char*>, 13> attributes{{
        {&found.tensor_type, "Tensor"},
        {&found.float32, "float32"},
        {&found.float16, "float16"},
        {&found.bfloat16, "bfloat16"},
        {&found.int32, "int32"},
        {&found.int64, "int64"},
        {&found.empty, "empty"},
        {&found.empty_like, "empty_like"},
        {&found.get_num_threads, "get_num_threads"},
        {&found.is_grad_enabled, "is_grad_enabled"},
        {&found.parameter_type, "nn.Parameter"},
        {&found.increment_version, "autograd.graph.increment_version"},
        {&found.forward_ad, "autograd.forward_ad"},
    }};
    for (const auto& [place, name] : attributes) {
        *place = find(module, name);
        if (*place == nullptr) {
            PyErr_Clear();
            return nullptr;
        }
    }
    const std::array<std::pair<PyObject**, const char*>, 3> private_ones{{
        {&found.dispatch_modes, "_C._len_torch_dispatch_stack"},
        {&found.is_tracing, "_C._is_tracing"},
        {&found.transform, "_C._functorch.peek_interpreter_stack"},
    }};
    for (const auto& [place, name] : private_ones) {
        *place = find(module, name);
        if (*place == nullptr) PyErr_Clear();
    }
    found.exchange = exchange_of(found.tensor_type);
    return new torch_module(found);
}

/// The answer to a question that torch may not know.
bool holds(PyObject* question) { return question != nullptr && PyObject_IsTrue(call(question).ptr()) == 1; }

}  // namespace

const torch_module* loaded_torch() {
    static const torch_module* torch = nullptr;
    if (torch != nullptr) return torch;
    static PyObject* const name = PyUnicode_InternFromString("torch");
    PyObject* const module = PyDict_GetItemWithError(PyImport_GetModuleDict(), name);
    if (module != nullptr) torch = look_up(module);
    return torch;
}

bool torch_records() {
    const torch_module& torch = *loaded_torch();
    return holds(torch.dispatch_modes) || holds(torch.is_tracing);
}

bool torch_listens() {
    const torch_module& torch = *loaded_torch();
    if (torch_records() || holds(torch.transform)) return true;
    static PyObject* const level = PyUnicode_InternFromString("_current_level");
    const auto now = py::reinterpret_steal<py::object>(PyObject_GetAttr(torch.forward_ad, level));
    if (!now) PyErr_Clear();
    return now && PyLong_AsLong(now.ptr()) >= 0;
}

bool is_torch_tensor(py::handle object) {
    const torch_module* const torch = loaded_torch();
    if (torch == nullptr) return false;
    if (reinterpret_cast<PyObject*>(Py_TYPE(object.ptr())) == torch->tensor_type) return true;
    const int answer = PyObject_IsInstance(object.ptr(), torch->tensor_type);
    if (answer < 0) throw py::error_already_set();
    return answer == 1;
}

}  // namespace ropewalk::python
