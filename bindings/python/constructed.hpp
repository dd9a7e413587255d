// Refusal of Python objects whose constructor has not run.
#pragma once

#include <string>
#include <utility>

#include <pybind11/pybind11.h>

namespace ropewalk::python {

/// pybind11's caster of a bound class, without its allocation of raw memory for objects that were made by `__new__`
/// alone, as a crafted pickle makes them. They get a TypeError.
template <class T>
struct constructed_caster : pybind11::detail::type_caster_base<T> {
    using base = pybind11::detail::type_caster_base<T>;

    bool load(pybind11::handle source, bool convert) {
        return this->template load_impl<constructed_caster>(source, convert);
    }

    // load_impl() calls this for every instance.
    void load_value(pybind11::detail::value_and_holder&& held) {
        if (!held.holder_constructed()) {
            const std::string name = Py_TYPE(reinterpret_cast<PyObject*>(held.inst))->tp_name;
            throw pybind11::type_error("ropewalk: this " + name + " was made without its constructor; call " + name +
                                       "()");
        }
        base::load_value(std::move(held));
    }
};

}  // namespace ropewalk::python
