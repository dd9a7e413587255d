// The score axis: what happens to a logit besides the rotation of its query and key.

#include <pybind11/numpy.h>

#include <ropewalk/policy/score.hpp>

#include "bindings.hpp"

namespace ropewalk::python {

namespace {

/// Integers of any shape, as NumPy understands them.
py::array_t<std::int64_t, py::array::c_style | py::array::forcecast> integers(py::handle object) {
    const py::array given = py::module_::import("numpy").attr("asarray")(object);
    RW_EXPECTS(given.dtype().kind() == 'i', "positions must be int32 or int64, got {}",
               py::str(given.dtype()).cast<std::string>());
    return given;
}

py::array_t<double> query_temperature(py::handle positions, double scale, std::int64_t length) {
    const auto ids = integers(positions);
    py::array_t<double> temperatures(std::vector<py::ssize_t>(ids.shape(), ids.shape() + ids.ndim()));
    const QueryTemperature temperature{scale, length};
    double* const result = temperatures.mutable_data();
    for (py::ssize_t i = 0; i < ids.size(); ++i) result[i] = temperature(ids.data()[i]);
    return temperatures;
}

}  // namespace

void bind_score(py::module_& m) {
    using namespace py::literals;
    m.def(
        "alibi_slopes",
        [](std::int64_t heads) {
            const std::vector<double> slopes = alibi_slopes(heads);
            return py::array_t<double>(static_cast<py::ssize_t>(slopes.size()), slopes.data());
        },
        "heads"_a,
        "float64 [heads]: the logit of head h falls by slopes[h] for every token between query and key.\n\n"
        "2**(-8 * (h + 1) / heads) where heads is a power of two; else those of the power of two below, then every "
        "second one of twice that (ALiBi, arXiv 2108.12409, section 3). Throws ropewalk.Error unless heads is "
        "positive.");
    m.def(
        "query_temperature", &query_temperature, "positions"_a, "scale"_a = 0.1, "length"_a = 8192,
        "float64 of the shape of positions (int32 or int64): what a query is multiplied by in Llama-4's layers without "
        "RoPE.\n\n"
        "1 + scale * ln(1 + (p + 1) // length), length in tokens (`attn_scale` and `floor_scale` of Transformers). "
        "Throws ropewalk.Error for negative positions and a length that is not positive.");
}

}  // namespace ropewalk::python
