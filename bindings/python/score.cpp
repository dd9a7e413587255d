// The score axis: ALiBi slopes and the query temperature of Llama 4.

#include <pybind11/numpy.h>

#include <ropewalk/policy/score.hpp>

#include "arguments.hpp"
#include "bindings.hpp"

namespace ropewalk::python {

namespace {

/// Integers of any shape as a NumPy array.
py::array_t<std::int64_t, py::array::c_style | py::array::forcecast> integers(py::handle object) {
    const py::array numbers = as_numpy(object, "positions");
    const char kind = numbers.dtype().kind();
    RW_EXPECTS(kind == 'i' || (kind == 'u' && numbers.itemsize() < 8),
               "positions must be int64, or integers of at most 32 bits, got {}",
               py::str(numbers.dtype()).cast<std::string>());
    return numbers;
}

py::array_t<double> query_temperature(py::handle positions, py::handle scale, py::handle length) {
    const QueryTemperature temperature{as_double(scale, "scale"), as_int64(length, "length")};
    const auto ids = integers(positions);
    py::array_t<double> temperatures(std::vector<py::ssize_t>(ids.shape(), ids.shape() + ids.ndim()));
    double* const result = temperatures.mutable_data();
    for (py::ssize_t i = 0; i < ids.size(); ++i) result[i] = temperature(ids.data()[i]);
    return temperatures;
}

}  // namespace

void bind_score(py::module_& m) {
    using namespace py::literals;
    m.def(
        "alibi_slopes",
        [](py::handle heads) {
            const std::vector<double> slopes = alibi_slopes(as_int64(heads, "heads"));
            return py::array_t<double>(static_cast<py::ssize_t>(slopes.size()), slopes.data());
        },
        "heads"_a, R"(Return the ALiBi slopes of a layer (arXiv 2108.12409, section 3).

The logit of head h decreases by slopes[h] per token between query and key. slopes[h] is 2**(-8 * (h + 1) / heads) if heads
is a power of two. Otherwise they are the slopes for the next lower power of two, then every second one for twice that.

Args:
    heads: Number of query heads.

Returns:
    float64 [heads].

Raises:
    Error: heads is not positive.)");
    m.def("query_temperature", &query_temperature, "positions"_a, "scale"_a = 0.1, "length"_a = 8192,
          R"(Return the factor of the queries in the layers of Llama 4 without RoPE.

The factor at position p is 1 + scale * ln(1 + (p + 1) // length).

Args:
    positions: Integers of any type but uint64 and of any shape, not negative.
    scale: `attn_scale` of Transformers.
    length: Tokens, `floor_scale` of Transformers.

Returns:
    float64 of the shape of positions.

Raises:
    Error: A position is negative, length is not positive or scale is not finite.)");
}

}  // namespace ropewalk::python
