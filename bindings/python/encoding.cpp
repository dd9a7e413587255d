// The class Encoding.

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>

#include <pybind11/stl.h>

#include "arguments.hpp"
#include "bindings.hpp"
#include "dispatch/dispatch.hpp"
#include "positional.hpp"

namespace ropewalk::python {

namespace {

std::int64_t integer_or_0(py::handle number, const char* name) { return number.is_none() ? 0 : as_int64(number, name); }

/// TypeError for what is no number.
double as_double(py::handle number, const char* name) {
    const double value = PyFloat_AsDouble(number.ptr());
    if (value != -1 || PyErr_Occurred() == nullptr) return value;
    PyErr_Clear();
    throw py::type_error(detail::format("ropewalk: {} must be a number, got {}", name, std::string(py::repr(number))));
}

Encoding make(py::handle chosen, py::handle head_dim, py::handle base, py::handle rotary_dim, py::handle rotary_offset,
              py::handle layout, py::handle sequence_length) {
    const std::int64_t width = integer_or_0(rotary_dim, "rotary_dim");
    RW_EXPECTS(width != 0 || rotary_dim.is_none(), "rotary_dim must be even and positive, got 0");
    const Geometry geometry{as_int64(head_dim, "head_dim"),           width,
                            as_int64(rotary_offset, "rotary_offset"), as_double(base, "base"),
                            as_layout(std::string(py::str(layout))),  integer_or_0(sequence_length, "sequence_length")};
    const std::vector<any_policy> chain = as_policies(chosen);
    return make_encoding(geometry, std::span<const any_policy>(chain));
}

std::string layout_of(const Encoding& self) { return std::string(to_string(*self.geometry.layout)); }

/// What tells one encoding from another, and what makes it again.
py::tuple key_of(const Encoding& self) {
    const Geometry& g = self.geometry;
    return py::make_tuple(self.expression, g.head_dim, g.base, g.width(), g.rotary_offset, layout_of(self),
                          g.sequence_length);
}

/// The same as one text, "linear:8@128@10000@128@0@half_split@0": what an operator of torch is given at every call.
std::string text_key(const Encoding& self) {
    const Geometry& g = self.geometry;
    std::array<char, 32> base{};  // the shortest text that is this number
    const auto* const end = std::to_chars(base.data(), base.data() + base.size(), g.base).ptr;
    std::string text = self.expression;
    const auto append = [&text](std::string_view part) { text.append("@").append(part); };
    append(std::to_string(g.head_dim));
    append({base.data(), static_cast<std::size_t>(end - base.data())});
    append(std::to_string(g.width()));
    append(std::to_string(g.rotary_offset));
    append(to_string(*g.layout));
    append(std::to_string(g.sequence_length));
    return text;
}

Encoding from_text_key(const std::string& key) {
    const py::list parts = py::str(key).attr("split")("@");
    RW_EXPECTS(parts.size() == 7, "'{}' is no key of an encoding", key);
    const auto integer = [&parts](std::size_t i) { return py::int_(parts[i]); };
    return make(parts[0], integer(1), py::float_(parts[2]), integer(3), integer(4), parts[5], integer(6));
}

std::string repr(const Encoding& self) {
    const Geometry& g = self.geometry;
    std::string text = "ropewalk.Encoding(\"" + self.expression + "\", head_dim=" + std::to_string(g.head_dim) +
                       ", base=" + std::string(py::repr(py::float_(g.base)));
    if (g.width() != g.head_dim - g.rotary_offset) text += ", rotary_dim=" + std::to_string(g.width());
    if (g.rotary_offset != 0) text += ", rotary_offset=" + std::to_string(g.rotary_offset);
    text += ", layout=\"" + layout_of(self) + "\"";
    if (g.sequence_length != 0) text += ", sequence_length=" + std::to_string(g.sequence_length);
    return text + ")";
}

py::object numpy_empty(const py::tuple& shape, const char* type) {
    return py::module_::import("numpy").attr("empty")(shape, type);
}

/// A new NumPy array with a copy of the values.
template <class T>
py::object to_numpy(const std::vector<T>& values, const char* type) {
    const py::object made = numpy_empty(py::make_tuple(values.size()), type);
    if (!values.empty()) std::memcpy(read_array(made, "result").data, values.data(), values.size() * sizeof(T));
    return made;
}

py::tuple cos_sin(const Encoding& self, py::handle where, bool elementwise, py::handle threads) {
    RW_EXPECTS(!where.is_none(), "positions is None");
    RW_EXPECTS(!is_torch_tensor(where) || !torch_records(),
               "cos_sin is no operator that torch could record: call it outside of modes and traces");
    const token_positions read(self, where, 0, py::none());
    RW_EXPECTS(read.source.axes == (read.where.axes == 1 ? 1 : 2), "{}: expected [tokens]{}",
               describe(read.source, "positions"), self.has_axes() ? " or [3, tokens]" : "");
    const std::int64_t tokens = read.where.count, columns = self.pairs() * (elementwise ? 2 : 1);
    const py::tuple shape = py::make_tuple(tokens, columns);
    const auto allocate = [&] {
        if (read.source.origin != array::library::torch) return numpy_empty(shape, "float32");
        const torch_module& torch = *loaded_torch();
        return py::object(
            py::handle(torch.empty)(shape, py::arg("dtype") = py::handle(torch.float32), py::arg("device") = "cpu"));
    };
    py::object cos = allocate(), sin = allocate();
    const auto floats = [&](const py::object& made) {
        return std::span<float>(static_cast<float*>(read_array(made, "result").data),
                                static_cast<std::size_t>(tokens * columns));
    };
    const auto cos_floats = floats(cos), sin_floats = floats(sin);
    const int team = as_threads(threads);
    {
        const py::gil_scoped_release released;
        dispatch::cos_sin(*self.geometry.layout, self, read.where, tokens, columns, cos_floats, sin_floats, team);
    }
    return py::make_tuple(std::move(cos), std::move(sin));
}

/// "torch.bfloat16", numpy.float16, <class 'numpy.float32'>, "f16", …
element_type element_named(py::handle dtype) {
    const auto text = std::string(py::str(dtype));
    const auto has = [&text](const char* part) { return text.find(part) != std::string::npos; };
    if (has("bfloat16") || has("bf16")) return element_type::bf16;
    if (has("float16") || has("f16")) return element_type::f16;
    RW_EXPECTS(has("float32") || has("f32"), "dtype must be float32, float16 or bfloat16, got {}", text);
    return element_type::f32;
}

std::int64_t max_position(const Encoding& self, py::handle dtype) {
    return self.centre + self.reach(element_named(dtype));
}

}  // namespace

void bind_encoding(py::module_& m) {
    using namespace py::literals;
    py::class_<Encoding> made(m, "Encoding",
                              "Policies and the shape of a head, worked out: the frequency of every pair. Immutable; "
                              "ropewalk.encoding() makes "
                              "one. Pair j of the token at position p turns by p * inv_freq[j] radians.");
    made.def(py::init(&make), "policy"_a, "head_dim"_a, "base"_a = 10000.0, "rotary_dim"_a = py::none(),
             "rotary_offset"_a = 0, "layout"_a = "half_split", "sequence_length"_a = py::none());
    made.def_property_readonly(
        "inv_freq", [](const Encoding& self) { return to_numpy(self.inv_freq, "float64"); },
        "float64 [rotary_dim/2], radians a token, after every policy. A copy.");
    made.def_property_readonly(
        "steps", [](const Encoding& self) { return to_numpy(self.steps, "uint64"); },
        "uint64 [rotary_dim/2], 2^-64 turns a token: what the kernels use. A copy.");
    made.def_property_readonly(
        "magnitude_rates",
        [](const Encoding& self) {
            std::vector<double> bits(self.steps.size());
            for (std::size_t pair = 0; pair < self.magnitude_rates.size(); ++pair)
                bits[pair] = static_cast<double>(self.magnitude_rates[pair]) * 0x1p-56;
            return to_numpy(bits, "float64");
        },
        "float64 [rotary_dim/2]: what tokens d apart add to a score is multiplied by 2**(-d * magnitude_rates); 0 "
        "without xPos.");
    made.def_property_readonly(
        "draws_positions", [](const Encoding& self) { return static_cast<bool>(self.draw_positions); },
        "Whether the token at index i gets a number of its own making (randomized) instead of i.");
    made.def_readonly("attention_factor", &Encoding::attention_factor,
                      "Multiplies cos and sin, for queries and keys alike.");
    made.def_readonly("softmax_factor", &Encoding::softmax_factor,
                      "Multiplies the softmax scale of attention (DeepSeek); no rotation applies it.");
    made.def_readonly(
        "stage", &Encoding::stage,
        "Changes when sequence_length moves a policy to other frequencies: keys cached in one stage do not fit "
        "into another, see ropewalk.rerotate_().");
    made.def_readonly("expression", &Encoding::expression,
                      "The policies as text, which ropewalk.encoding() reads back.");
    made.def_property_readonly(
        "policy", [](const Encoding& self) { return policy_object(parse_policies(self.expression)); },
        "The policies as objects.");
    made.def_property_readonly(
        "head_dim", [](const Encoding& self) { return self.geometry.head_dim; }, "Elements a head.");
    made.def_property_readonly(
        "rotary_dim", [](const Encoding& self) { return self.geometry.width(); }, "Elements that turn.");
    made.def_property_readonly(
        "rotary_offset", [](const Encoding& self) { return self.geometry.rotary_offset; },
        "The first element that turns.");
    made.def_property_readonly(
        "base", [](const Encoding& self) { return self.geometry.base; }, "`rope_theta`.");
    made.def_property_readonly("layout", &layout_of,
                               "'half_split' pairs (j, j + rotary_dim/2), 'interleaved' (2j, 2j + 1).");
    made.def_property_readonly(
        "sequence_length",
        [](const Encoding& self) {
            const std::int64_t length = self.geometry.sequence_length;
            return length == 0 ? py::object(py::none()) : py::object(py::int_(length));
        },
        "Tokens, or None where it was not stated.");
    made.def("max_position", &max_position, "dtype"_a,
             "The largest position that an xPos magnitude lets elements of this type hold; 2**62 without one.\n\n"
             "dtype: float32, float16 or bfloat16, as text or of any library.");
    made.def(
        "cos_sin", &cos_sin, "positions"_a, "elementwise"_a = false, "threads"_a = py::none(),
        "Cosines and sines at positions [n] (or [3, n] for mrope), int32 or int64: two float32 arrays [n, "
        "rotary_dim/2].\n\n"
        "The angle alone, without attention_factor or xPos magnitudes. Max error 1.2e-7 for |p| < 2^31. With "
        "elementwise=True [n, rotary_dim] in the order of the layout, as Transformers multiplies by. NumPy arrays, or "
        "torch tensors where positions is one. Throws ropewalk.Error for positions of another type or shape.");
    made.def_property_readonly("key", &text_key, "All that makes this encoding, as one text: see from_key().");
    made.def_static("from_key", &from_text_key, "key"_a, "The encoding whose `key` this is.");
    made.def("__repr__", &repr);
    made.def("__eq__", [](const Encoding& self, py::handle other) {
        return py::isinstance<Encoding>(other) && key_of(self).equal(key_of(other.cast<const Encoding&>()));
    });
    made.def("__hash__", [](const Encoding& self) { return py::hash(key_of(self)); });
    made.def("__reduce__", [made](const Encoding& self) { return py::make_tuple(made, key_of(self)); });
}

}  // namespace ropewalk::python
