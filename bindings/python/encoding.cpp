// The Python class Encoding.

#include <algorithm>
#include <cmath>
#include <cstring>

#include <pybind11/stl.h>

#include <ropewalk/dispatch.hpp>
#include "arguments.hpp"
#include "bindings.hpp"

namespace ropewalk::python {

namespace {

std::int64_t integer_or_0(py::handle number, const char* name) { return number.is_none() ? 0 : as_int64(number, name); }

Encoding make(py::handle policy, py::handle head_dim, py::handle base, py::handle rotary_dim, py::handle rotary_offset,
              py::handle layout, py::handle sequence_length) {
    const std::int64_t width = integer_or_0(rotary_dim, "rotary_dim");
    RW_EXPECTS(width != 0 || rotary_dim.is_none(), "rotary_dim must be even and positive, got 0");
    const Geometry geometry{.head_dim = as_int64(head_dim, "head_dim"),
                            .rotary_dim = width,
                            .rotary_offset = as_int64(rotary_offset, "rotary_offset"),
                            .base = as_double(base, "base"),
                            .layout = as_layout(as_text(layout, "layout")),
                            .sequence_length = integer_or_0(sequence_length, "sequence_length")};
    const std::vector<any_policy> chain = as_policies(policy);
    return make_encoding(geometry, std::span<const any_policy>(chain));
}

std::string layout_of(const Encoding& self) { return std::string(to_string(*self.geometry.layout)); }

/// The arguments of the constructor, by which encodings are compared.
py::tuple key_of(const Encoding& self) {
    const Geometry& g = self.geometry;
    return py::make_tuple(self.expression, g.head_dim, g.base, g.width(), g.rotary_offset, layout_of(self),
                          g.sequence_length);
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
    py::object copy = numpy_empty(py::make_tuple(values.size()), type);
    if (!values.empty()) std::memcpy(read_array(copy, "result").data, values.data(), values.size() * sizeof(T));
    return copy;
}

py::tuple cos_sin(const Encoding& self, py::handle ids, py::handle doubled, py::handle threads) {
    RW_EXPECTS(!ids.is_none(), "positions is None");
    RW_EXPECTS(!is_torch_tensor(ids) || !torch_records(),
               "cos_sin cannot be traced; call it outside of modes and traces");
    const bool elementwise = as_bool(doubled, "elementwise");
    const int count = thread_count(threads);  // before the address of the positions, which `__index__` may move
    const token_positions positions(self, ids, {}, py::none());
    RW_EXPECTS(positions.source.axes == (positions.value.axes == 1 ? 1 : 2), "{}: expected [tokens]{}",
               describe(positions.source, "positions"), self.has_axes() ? " or [3, tokens]" : "");
    const std::int64_t tokens = positions.value.count, columns = self.pairs() * (elementwise ? 2 : 1);
    const py::tuple shape = py::make_tuple(tokens, columns);
    const auto allocate = [&] {
        if (positions.source.origin != array::library::torch) return numpy_empty(shape, "float32");
        const torch_module& torch = *loaded_torch();
        return py::object(
            py::handle(torch.empty)(shape, py::arg("dtype") = py::handle(torch.float32), py::arg("device") = "cpu"));
    };
    const auto floats = [&](const py::object& result) {
        return std::span<float>(static_cast<float*>(read_array(result, "result").data),
                                static_cast<std::size_t>(tokens * columns));
    };
    py::object cos = allocate(), sin = allocate();
    const auto cos_floats = floats(cos), sin_floats = floats(sin);
    {
        const py::gil_scoped_release released;
        dispatch::cos_sin(*self.geometry.layout, self, positions.value, tokens, columns, cos_floats, sin_floats, count);
    }
    return py::make_tuple(std::move(cos), std::move(sin));
}

/// "torch.bfloat16", numpy.float16, <class 'numpy.float32'>, "f16", …
element_type element_named(py::handle dtype) {
    const std::string text = PyUnicode_Check(dtype.ptr()) != 0 ? std::string(as_text(dtype, "dtype")) : repr_of(dtype);
    const auto has = [&text](const char* part) { return text.find(part) != std::string::npos; };
    if (has("bfloat16") || has("bf16")) return element_type::bf16;
    if (has("float16") || has("f16")) return element_type::f16;
    if (has("float64") || has("f64")) return element_type::f64;
    RW_EXPECTS(has("float32") || has("f32"), "dtype must be float32, float16, bfloat16 or float64, got {}", text);
    return element_type::f32;
}

std::int64_t max_position(const Encoding& self, py::handle dtype) {
    return self.centre + self.reach(element_named(dtype));
}

py::object sequence_length_of(const Encoding& self) {
    const std::int64_t length = self.geometry.sequence_length;
    return length == 0 ? py::object(py::none()) : py::object(py::int_(length));
}

py::object magnitude_rates_of(const Encoding& self) {
    std::vector<double> bits(self.steps.size());
    std::transform(self.magnitude_rates.begin(), self.magnitude_rates.end(), bits.begin(),
                   [](auto rate) { return static_cast<double>(rate) * 0x1p-56; });
    return to_numpy(bits, "float64");
}

}  // namespace

void bind_encoding(py::module_& m) {
    using namespace py::literals;
    py::class_<Encoding> encoding(m, "Encoding",
                                  R"(Rotation frequencies of one head shape: policies applied to a geometry.

Immutable, hashable and picklable. ropewalk.encoding() makes one. Pair j of the token at position p is rotated by
p * inv_freq[j] radians.)");
    encoding.def(py::init(&make), "policy"_a, "head_dim"_a, "base"_a = 10000.0, "rotary_dim"_a = py::none(),
                 "rotary_offset"_a = 0, "layout"_a = "half_split", "sequence_length"_a = py::none(),
                 "Takes the arguments of ropewalk.encoding().");
    const auto property = [&encoding](const char* name, auto get, const char* text) {
        encoding.def_property_readonly(name, get, text);
    };
    property(
        "inv_freq", [](const Encoding& self) { return to_numpy(self.inv_freq, "float64"); },
        "Angle per token of each pair, after all policies: float64 [rotary_dim/2], radians. A copy.");
    property(
        "steps", [](const Encoding& self) { return to_numpy(self.steps, "uint64"); },
        "The same in fixed point, as the kernels use it: uint64 [rotary_dim/2], 2^-64 turns per token. A copy.");
    property(
        "magnitude_rates", &magnitude_rates_of,
        "Magnitude of xPos per token of distance: float64 [rotary_dim/2], in bits. The contribution of pair j to the "
        "score of two tokens at distance d is multiplied by 2**(-d * magnitude_rates[j]). 0 without xPos. A copy.");
    property(
        "draws_positions", [](const Encoding& self) { return static_cast<bool>(self.draw_positions); },
        "True if the policies draw random positions for the tokens (randomized).");
    property(
        "has_axes", [](const Encoding& self) { return self.has_axes(); },
        "True if each token has three positions, t, h and w (mrope).");
    property(
        "attention_factor", [](const Encoding& self) { return self.attention_factor; },
        "Multiplies cosines and sines, for queries and keys alike (YaRN, LongRoPE).");
    property(
        "softmax_factor", [](const Encoding& self) { return self.softmax_factor; },
        "Multiplies the softmax scale of attention (DeepSeek). Rotations do not apply it.");
    property(
        "stage", [](const Encoding& self) { return self.stage; },
        "Identifier of the frequencies that a length-dependent policy uses at sequence_length. Keys cached in one "
        "stage "
        "do not fit another one: see ropewalk.rerotate_().");
    property(
        "expression", [](const Encoding& self) { return self.expression; },
        "The policies as text, which ropewalk.encoding() reads.");
    property(
        "policy", [](const Encoding& self) { return policy_object(parse_policies(self.expression)); },
        "The policies as an object.");
    property(
        "head_dim", [](const Encoding& self) { return self.geometry.head_dim; }, "Elements per head.");
    property(
        "rotary_dim", [](const Encoding& self) { return self.geometry.width(); }, "Elements of a head to rotate.");
    property(
        "rotary_offset", [](const Encoding& self) { return self.geometry.rotary_offset; },
        "The first element of a head to rotate.");
    property(
        "base", [](const Encoding& self) { return self.geometry.base; },
        "Base of the frequencies, `rope_theta` in Hugging Face configurations.");
    property("layout", &layout_of,
             "The two elements of pair j: (j, j + rotary_dim/2) for 'half_split', (2j, 2j + 1) for 'interleaved'.");
    property("sequence_length", &sequence_length_of,
             "Tokens of the sequence, for policies that depend on it, or None.");
    property("key", &text_key, "All arguments of the constructor as one text, which from_key() reads.");
    encoding.def_static(
        "from_key", [](py::handle key) { return encoding_of_key(as_text(key, "key")); }, "key"_a,
        R"(Return the encoding with this `key`.

Raises:
    Error: The text is not a key.)");
    encoding.def("max_position", &max_position, "dtype"_a, R"(Return the largest position that this element type holds.

The magnitude of xPos limits it. Without xPos it is 2**61.

Args:
    dtype: float32, float16, bfloat16 or float64, as text or as the dtype of any library.

Raises:
    Error: The type is another one.)");
    encoding.def("cos_sin", &cos_sin, "positions"_a, "elementwise"_a = false, "threads"_a = py::none(),
                 R"(Return cosines and sines of the angles, without attention_factor and xPos magnitudes.

The largest error is 1.2e-7 for |p| < 2^31.

Args:
    positions: integers [n], or [3, n] for mrope.
    elementwise: Repeats each value for both elements of its pair, in the order of the layout, as Transformers does.
    threads: Upper limit; see ropewalk.rotate_().

Returns:
    (cos, sin), each float32 [n, rotary_dim/2], or [n, rotary_dim] if elementwise. PyTorch tensors if positions is one,
    else NumPy arrays.

Raises:
    Error: The positions have another type or shape.)");
    encoding.def("__repr__", &repr);
    // Text for people is made in Python.
    encoding.def(
        "__str__", [](py::handle self) { return py::module_::import("ropewalk._card").attr("summary")(self); },
        "Return one line, with long lists abbreviated.");
    encoding.def(
        "_repr_html_", [](py::handle self) { return py::module_::import("ropewalk._html").attr("of_encoding")(self); },
        "Return the card of inspect() with its plot, for notebooks.");
    encoding.def("__eq__", [](const Encoding& self, py::handle other) {
        return py::isinstance<Encoding>(other) && key_of(self).equal(key_of(other.cast<const Encoding&>()));
    });
    encoding.def("__hash__", [](const Encoding& self) { return py::hash(key_of(self)); });
    encoding.def("__reduce__", [encoding](const Encoding& self) { return py::make_tuple(encoding, key_of(self)); });
}

}  // namespace ropewalk::python
