// Functions of the module that are called often: Python hands their arguments over as they lie, without pybind11's
// search for an overload, which takes longer than the rotation of a token.
#pragma once

#include <cstdint>
#include <new>

#include <pybind11/pybind11.h>

#include <ropewalk/core/error.hpp>

namespace ropewalk::python {

namespace py = pybind11;

using positional = PyObject* const*;

/// What a ropewalk::error becomes: set once, when the module is made.
inline PyObject* error_class = nullptr;

/// Calls Function with `Count` positional arguments, and hands its result or its error to Python.
template <py::object (*Function)(positional), int Count>
PyObject* call_positional(PyObject*, PyObject* const* given, Py_ssize_t count) noexcept {
    try {
        if (count == Count) return Function(given).release().ptr();
        PyErr_Format(PyExc_TypeError, "ropewalk: expected %d arguments, got %zd", Count, count);
    } catch (py::error_already_set& raised) {
        raised.restore();
    } catch (const py::builtin_exception& raised) {
        raised.set_error();
    } catch (const error& raised) {
        PyErr_SetString(error_class, raised.what());
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
    } catch (const std::exception& raised) {
        PyErr_SetString(PyExc_RuntimeError, raised.what());
    }
    return nullptr;
}

/// An entry of the table that PyModule_AddFunctions() takes.
template <py::object (*Function)(positional), int Count>
PyMethodDef positional_method(const char* name) {
    auto* const plain = reinterpret_cast<void (*)()>(&call_positional<Function, Count>);
    return {name, reinterpret_cast<PyCFunction>(plain), METH_FASTCALL, nullptr};
}

/// TypeError for what is no integer, Error for one that 64 bits do not hold.
inline std::int64_t as_int64(py::handle number, const char* name) {
    if (PyIndex_Check(number.ptr()) == 0) {
        throw py::type_error(
            detail::format("ropewalk: {} must be an integer, got {}", name, Py_TYPE(number.ptr())->tp_name));
    }
    const auto integer = py::reinterpret_steal<py::object>(PyNumber_Index(number.ptr()));
    if (!integer) throw py::error_already_set();
    const long long value = PyLong_AsLongLong(integer.ptr());
    if (value == -1 && PyErr_Occurred() != nullptr) {
        if (PyErr_ExceptionMatches(PyExc_OverflowError) == 0) throw py::error_already_set();
        PyErr_Clear();
        detail::fail("{} must be an integer of 64 bits, got {}", name, std::string(py::str(integer)));
    }
    return value;
}

/// TypeError for what is no truth value.
inline bool as_bool(py::handle truth, const char* name) {
    py::detail::make_caster<bool> caster;
    if (!caster.load(truth, true)) {
        throw py::type_error(
            detail::format("ropewalk: {} must be True or False, got {}", name, Py_TYPE(truth.ptr())->tp_name));
    }
    return py::detail::cast_op<bool>(caster);
}

}  // namespace ropewalk::python
