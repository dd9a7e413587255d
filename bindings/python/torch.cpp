#include "torch.hpp"

#include <sstream>
#include <string>

namespace ropewalk::python {

namespace {

/// A new reference to the attribute at the end of a path such as "nn.Parameter"; null if it is missing.
PyObject* find(PyObject* module, const char* path) {
    py::object object = py::reinterpret_borrow<py::object>(module);
    std::istringstream names{path};
    for (std::string name; std::getline(names, name, '.');) {
        object = py::reinterpret_steal<py::object>(PyObject_GetAttrString(object.ptr(), name.c_str()));
        if (!object) return PyErr_Clear(), nullptr;
    }
    return object.release().ptr();
}

/// Null if a public attribute is missing: another thread is importing PyTorch at this moment.
const torch_module* look_up(PyObject* module) {
    bool complete = true;
    const auto find_public = [&](const char* path) {
        PyObject* const object = find(module, path);
        complete = complete && object != nullptr;
        return object;
    };
    const torch_module torch{
        .tensor_type = find_public("Tensor"),
        .parameter_type = find_public("nn.Parameter"),
        .float32 = find_public("float32"),
        .float16 = find_public("float16"),
        .bfloat16 = find_public("bfloat16"),
        .int32 = find_public("int32"),
        .int64 = find_public("int64"),
        .empty = find_public("empty"),
        .empty_like = find_public("empty_like"),
        .get_num_threads = find_public("get_num_threads"),
        .is_grad_enabled = find_public("is_grad_enabled"),
        .increment_version = find_public("autograd.graph.increment_version"),
        .is_tracing = find_public("jit.is_tracing"),
        .forward_ad = find_public("autograd.forward_ad"),
        // The modes of this thread. The public is_in_torch_dispatch_mode() is one flag for all threads.
        .dispatch_modes = find(module, "_C._len_torch_dispatch_stack"),
        // The transforms of torch.func, for which there is no public function.
        .transform = find(module, "_C._functorch.peek_interpreter_stack"),
        // The handle of the current CUDA stream, without a Stream object per launch. Triton calls it too.
        .raw_stream = find(module, "_C._cuda_getCurrentRawStream"),
    };
    return complete ? new torch_module(torch) : nullptr;
}

bool is_true(PyObject* question) { return question != nullptr && PyObject_IsTrue(call(question).ptr()) == 1; }

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
    return is_true(torch.dispatch_modes) || is_true(torch.is_tracing);
}

bool torch_observes() {
    const torch_module& torch = *loaded_torch();
    if (torch_records() || is_true(torch.transform)) return true;
    // The level of forward mode costs 0.5 us less than unpack_dual() of q and k.
    static PyObject* const level = PyUnicode_InternFromString("_current_level");
    return PyLong_AsLong(attribute(torch.forward_ad, level).ptr()) >= 0;
}

bool is_torch_tensor(py::handle object) {
    const torch_module* const torch = loaded_torch();
    if (torch == nullptr) return false;
    if (reinterpret_cast<PyObject*>(Py_TYPE(object.ptr())) == torch->tensor_type) return true;
    const int answer = PyObject_IsInstance(object.ptr(), torch->tensor_type);
    if (answer < 0) throw py::error_already_set();
    return answer == 1;
}

bool wants_gradient(py::handle tensor) {
    static PyObject* const requires_grad = PyUnicode_InternFromString("requires_grad");
    return attribute(tensor, requires_grad).ptr() == Py_True && is_true(loaded_torch()->is_grad_enabled);
}

bool is_plain_tensor(py::handle object) {
    const torch_module* const torch = loaded_torch();
    const auto* const type = reinterpret_cast<PyObject*>(Py_TYPE(object.ptr()));
    return torch != nullptr && (type == torch->tensor_type || type == torch->parameter_type);
}

bool needs_operator(py::handle object) {
    return is_torch_tensor(object) && (!is_plain_tensor(object) || wants_gradient(object));
}

void count_write(py::handle q, py::handle k) {
    const bool q_is_tensor = is_torch_tensor(q), k_is_tensor = is_torch_tensor(k);
    if (!q_is_tensor && !k_is_tensor) return;
    call_with(loaded_torch()->increment_version, q_is_tensor && k_is_tensor
                                                     ? py::object(py::make_tuple(q, k))
                                                     : py::reinterpret_borrow<py::object>(q_is_tensor ? q : k));
}

}  // namespace ropewalk::python
