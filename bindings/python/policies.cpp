// The Python class of each policy in the registry, made from the policy's name and tuple of parameters.

#include <pybind11/stl.h>

#include <optional>

#include "arguments.hpp"
#include "bindings.hpp"
#include "constructed.hpp"

namespace ropewalk::python {

namespace {

/// Base class in Python: a chain of policies, often just one.
struct policy {
    std::vector<any_policy> chain;
};

/// A parameter of type T as Python passes it. The casters of pybind11 would take booleans and complex numbers, too, and
/// their messages do not name the parameter.
template <class T>
struct unread {
    py::object value;
};

/// The class of a single policy of the registry.
template <class P>
struct single : policy {
    explicit single(P only) : policy{{std::move(only)}} {}
    [[nodiscard]] const P& get() const { return std::get<P>(chain.front()); }
};

}  // namespace

}  // namespace ropewalk::python

template <>
struct pybind11::detail::type_caster<ropewalk::python::policy>
    : ropewalk::python::constructed_caster<ropewalk::python::policy> {};
template <class T>
struct pybind11::detail::type_caster<ropewalk::python::unread<T>> {
    PYBIND11_TYPE_CASTER(ropewalk::python::unread<T>, make_caster<T>::name);  // the type, for documentation
    bool load(handle source, bool /*convert*/) {
        value.value = reinterpret_borrow<object>(source);
        return true;
    }
};
template <class P>
struct pybind11::detail::type_caster<ropewalk::python::single<P>>
    : ropewalk::python::constructed_caster<ropewalk::python::single<P>> {};

namespace ropewalk::python {

namespace {

std::string expression_of(const std::vector<any_policy>& chain) {
    std::string text;
    for (const any_policy& part : chain) {
        if (!text.empty()) text += "|";
        text += std::visit([](const auto& policy) { return describe(policy); }, part);
    }
    return text;
}

/// "XPos" for ropewalk::XPos: Python and C++ share the names.
template <class P>
std::string class_name() {
    std::string name = py::type_id<P>();
    return name.substr(name.rfind(':') + 1);
}

/// repr() of a parameter, as Python code.
std::string text_of(const py::object& value) {
    const auto text = std::string(py::repr(value));
    return text.ends_with("inf") ? "float('" + text + "')" : text;
}

template <class P>
std::string code_of(const P& policy) {
    std::string text = class_name<P>() + "(";
    const P defaults{};
    bool first = true;
    const auto append = [&](const auto& parameter, bool always) {
        const py::object value = py::cast(policy.*parameter.member);
        if (value.is_none() || (!always && policy.*parameter.member == defaults.*parameter.member)) return;
        text += (text.back() == '(' ? "" : ", ") + std::string(parameter.name) + "=" + text_of(value);
    };
    std::apply([&](const auto&... each) { ((append(each, first), first = false), ...); }, P::parameters);
    return text + ")";
}

std::string repr_of_chain(const policy& all) {
    std::string text;
    for (const any_policy& part : all.chain) {
        if (!text.empty()) text += " | ";
        text += std::visit([](const auto& policy) { return code_of(policy); }, part);
    }
    return text;
}

py::object join(const std::vector<any_policy>& left, const std::vector<any_policy>& right) {
    std::vector<any_policy> chain = left;
    chain.insert(chain.end(), right.begin(), right.end());
    return policy_object(std::move(chain));
}

template <class P>
std::string documentation() {
    std::string text = "The policy '" + std::string(P::name) + "'.";
    if constexpr (requires { P::about; }) text += " " + std::string(P::about);
    text += "\n\nropewalk.encoding() raises ropewalk.Error for an invalid parameter.";
    return text;
}

void read(py::handle value, const char* name, double& to) { to = as_double(value, name); }
void read(py::handle value, const char* name, std::int64_t& to) { to = as_int64(value, name); }
void read(py::handle value, const char* name, bool& to) { to = as_bool(value, name); }
template <class T>
void read(py::handle value, const char* name, std::optional<T>& to) {
    to.reset();
    if (!value.is_none()) read(value, name, to.emplace());
}
template <class T>
void read(py::handle value, const char* name, std::vector<T>& to) {
    check_plain(value, name);
    const Py_ssize_t size = PySequence_Check(value.ptr()) != 0 ? PySequence_Size(value.ptr()) : -1;
    if (size < 0 || PyUnicode_Check(value.ptr()) != 0 || PyBytes_Check(value.ptr()) != 0 ||
        PyByteArray_Check(value.ptr()) != 0) {
        PyErr_Clear();
        throw py::type_error(
            detail::format("ropewalk: {} must be a sequence of numbers, got {}", name, Py_TYPE(value.ptr())->tp_name));
    }
    RW_EXPECTS(size <= Geometry::max_width, "{} must have at most {} entries, got {}", name, Geometry::max_width, size);
    to.clear();
    for (Py_ssize_t i = 0; i < size; ++i) read(checked(PySequence_GetItem(value.ptr(), i)), name, to.emplace_back());
}

/// Parameter I of a policy as an argument of its constructor. A required one has no default.
template <class P, std::size_t I>
auto argument() {
    constexpr auto parameter = std::get<I>(P::parameters);
    // The names are string literals, which end with a zero.
    if constexpr (parameter.required) {
        return py::arg(parameter.name.data());
    } else {
        return py::arg(parameter.name.data()) = P{}.*parameter.member;
    }
}

template <class P, std::size_t... I>
void bind_constructor(py::class_<single<P>, policy>& bound, std::index_sequence<I...> /*all*/) {
    bound.def(
        py::init([](const unread<std::remove_cvref_t<decltype(P{}.*std::get<I>(P::parameters).member)>>&... values) {
            P policy{};
            (read(values.value, std::get<I>(P::parameters).name.data(), policy.*std::get<I>(P::parameters).member),
             ...);
            policy.validate();
            return single<P>(std::move(policy));
        }),
        argument<P, I>()...);
}

template <class P>
void bind_policy(py::module_& m) {
    py::class_<single<P>, policy> bound(m, class_name<P>().c_str(), documentation<P>().c_str());
    constexpr std::size_t count = std::tuple_size_v<std::remove_cvref_t<decltype(P::parameters)>>;
    bind_constructor<P>(bound, std::make_index_sequence<count>{});
    std::apply(
        [&](const auto&... each) {
            (bound.def_property_readonly(std::string(each.name).c_str(),
                                         [member = each.member](const single<P>& self) { return self.get().*member; }),
             ...);
        },
        P::parameters);
    bound.def("__reduce__", [](const single<P>& self) {
        const py::tuple values =
            std::apply([&](const auto&... each) { return py::make_tuple(self.get().*each.member...); }, P::parameters);
        return py::make_tuple(py::type::of<single<P>>(), values);
    });
    bound.attr("name") = std::string(P::name);
    if constexpr (requires { P::about; }) bound.attr("about") = std::string(P::about);
    if constexpr (requires { P::example(); }) {
        bound.def_static(
            "example", [] { return single<P>(P::example()); },
            "Return the policy with the parameters of a published model.");
    }
}

template <std::size_t... I>
void bind_registry(py::module_& m, std::index_sequence<I...> /*all*/) {
    (bind_policy<std::variant_alternative_t<I, any_policy>>(m), ...);
    m.attr("policy_classes") =
        py::make_tuple(m.attr(class_name<std::variant_alternative_t<I, any_policy>>().c_str())...);
}

}  // namespace

std::vector<any_policy> as_policies(py::handle object) {
    if (py::isinstance<py::str>(object)) return parse_policies(as_text(object, "policy"));
    if (py::isinstance<policy>(object)) return object.cast<const policy&>().chain;
    throw py::type_error(
        "ropewalk: policy must be an expression such as 'linear:8' or an object such as ropewalk.Linear(8), got " +
        std::string(Py_TYPE(object.ptr())->tp_name));
}

py::object policy_object(std::vector<any_policy> chain) {
    if (chain.size() != 1) return py::cast(policy{std::move(chain)});
    return std::visit([](auto& only) { return py::cast(single(only)); }, chain.front());
}

void bind_policies(py::module_& m) {
    py::class_<policy>(m, "Policy",
                       "Policies in the order of application: `ropewalk.Linear(4) | ropewalk.Truncated(4096)`.\n\n"
                       "str() returns the expression, `linear:4|truncated:4096`, which ropewalk.policy() reads.")
        .def(py::init([](py::handle expression) { return policy{parse_policies(as_text(expression, "expression"))}; }),
             py::arg("expression"))
        .def("__str__", [](const policy& self) { return expression_of(self.chain); })
        .def("__repr__", &repr_of_chain)
        .def(
            "_repr_html_",
            [](py::handle self) { return py::module_::import("ropewalk._html").attr("of_policy")(self); },
            "Return the card of inspect() with its plot, for notebooks.")
        .def("__or__", [](const policy& self, py::handle next) { return join(self.chain, as_policies(next)); })
        .def("__ror__", [](const policy& self, py::handle first) { return join(as_policies(first), self.chain); })
        .def("__eq__",
             [](const policy& self, py::handle other) {
                 return py::isinstance<policy>(other) &&
                        expression_of(self.chain) == expression_of(other.cast<const policy&>().chain);
             })
        .def("__hash__", [](const policy& self) { return py::hash(py::str(expression_of(self.chain))); })
        .def("__reduce__",
             [](py::handle self) { return py::make_tuple(py::type::of(self), py::make_tuple(py::str(self))); });
    bind_registry(m, std::make_index_sequence<std::variant_size_v<any_policy>>{});
    m.def(
        "policy",
        [](py::handle expression) { return policy_object(parse_policies(as_text(expression, "expression"))); },
        py::arg("expression"),
        R"(Return the policy object of an expression.

Args:
    expression: `name[:value][,key=value...]`, joined by `|` in the order of application.

Raises:
    Error: The expression is wrong; the message marks the character.)");
    m.def(
        "policies",
        [] {
            py::list names;
            for (const py::handle policy : py::module_::import("ropewalk._ropewalk").attr("policy_classes"))
                names.append(policy.attr("name"));
            return names;
        },
        "Return the names of all policies, as expressions use them.");
}

}  // namespace ropewalk::python
