#include "arguments.hpp"

#include <algorithm>
#include <cstring>

#include "positional.hpp"

namespace ropewalk::python {

namespace {

struct axis_order {
    std::string_view name;
    int batch, token, head;  ///< -1: there is no such axis
};
constexpr std::array<axis_order, 4> axis_orders{
    {{"thd", -1, 0, 1}, {"bshd", 0, 1, 2}, {"bhsd", 0, 2, 1}, {"sbhd", 1, 0, 2}}};

/// Where an empty tensor lies: its checks run like those of any other.
alignas(64) char nothing[64];

const axis_order& order_of(const array& a, const char* name, py::handle order) {
    if (order.is_none()) {
        RW_EXPECTS(a.axes == 3 || a.axes == 4,
                   "{} has {} axes, expected [tokens, heads, head_dim] or [batch, tokens, heads, head_dim]",
                   describe(a, name), a.axes);
        return axis_orders[a.axes == 3 ? 0 : 1];
    }
    const std::string wanted = py::str(order);
    for (const axis_order& one : axis_orders) {
        if (one.name != wanted) continue;
        RW_EXPECTS(a.axes == static_cast<int>(wanted.size()), "{} has {} axes, but the order '{}' names {}",
                   describe(a, name), a.axes, wanted, wanted.size());
        return one;
    }
    detail::fail("order must be 'thd', 'bshd', 'bhsd' or 'sbhd', got '{}'", wanted);
}

element_type element_of(const array& a, const char* name) {
    switch (a.type) {
        case number::f32:
            return element_type::f32;
        case number::f16:
            return element_type::f16;
        case number::bf16:
            return element_type::bf16;
        default:
            detail::fail("{}: expected float32, float16 or bfloat16", describe(a, name));
    }
}

/// Python's own numbers as an array that the caller keeps.
py::object as_numpy(py::handle object, const char* name) {
    RW_EXPECTS(!PyLong_Check(object.ptr()),
               "{} must name every token, got the number {}: give a list of them, or offset= where a call takes it",
               name, std::string(py::str(object)));
    const py::module_ numpy = py::module_::import("numpy");
    try {
        if (PyRange_Check(object.ptr()) != 0) {
            return numpy.attr("arange")(object.attr("start"), object.attr("stop"), object.attr("step"),
                                        py::arg("dtype") = "int64");
        }
        const py::object made = numpy.attr("asarray")(object);
        return made.attr("size").cast<std::int64_t>() == 0 ? made.attr("astype")("int64") : made;
    } catch (const py::error_already_set& problem) {  // rows of several lengths, numbers beyond 64 bits
        if (!problem.matches(PyExc_ValueError) && !problem.matches(PyExc_OverflowError)) throw;
        detail::fail("{} cannot be int32 or int64: {}", name, std::string(py::str(problem.value())));
    }
}

template <class I>
void copy_rows(const array& a, std::vector<std::int64_t>& into) {
    // Missing axes in front have one entry.
    std::array<std::int64_t, 3> extent{1, 1, 1}, stride{};
    for (int axis = 0; axis < a.axes; ++axis) {
        const auto to = static_cast<std::size_t>(3 - a.axes + axis);
        extent[to] = a.shape[static_cast<std::size_t>(axis)], stride[to] = a.strides[static_cast<std::size_t>(axis)];
    }
    const auto* const data = static_cast<const char*>(a.data);
    for (std::int64_t i = 0; i < extent[0] * extent[1] * extent[2]; ++i) {
        const std::int64_t column = i % extent[2], row = i / extent[2] % extent[1], axis = i / extent[2] / extent[1];
        const std::int64_t at = axis * stride[0] + row * stride[1] + column * stride[2];
        I value{};  // memcpy: the address may be odd
        std::memcpy(&value, data + at * static_cast<std::int64_t>(sizeof(I)), sizeof value);
        into.push_back(value);
    }
}

}  // namespace

const Encoding& as_encoding(py::handle object, const char* name) {
    py::detail::make_caster<Encoding> caster;
    if (object.is_none() || !caster.load(object, false)) {
        throw py::type_error(
            detail::format("ropewalk: {} must be a ropewalk.Encoding, got {}: ropewalk.encoding() makes one", name,
                           Py_TYPE(object.ptr())->tp_name));
    }
    return py::detail::cast_op<const Encoding&>(caster);
}

tensor as_tensor(const array& a, const char* name, py::handle order) {
    const axis_order& axes = order_of(a, name, order);
    const auto shape = [&a](int axis) { return axis < 0 ? 1 : a.shape[static_cast<std::size_t>(axis)]; };
    const auto stride = [&a](int axis) { return axis < 0 ? 0 : a.strides[static_cast<std::size_t>(axis)]; };
    const int last = a.axes - 1;
    tensor t{a.data,      element_of(a, name), shape(axes.batch),  shape(axes.token), shape(axes.head),
             shape(last), stride(axes.batch),  stride(axes.token), stride(axes.head), stride(last)};
    if (t.elements() == 0) t.data = nothing;
    return t;
}

void check_writable(const array& a, const char* name, const char* function) {
    RW_EXPECTS(a.writable, "{} is read-only and {} would write it: {}", describe(a, name), function,
               std::string_view(function) == "rotate" ? "give out= memory that may be written"
                                                      : "use rotate(), or pass a copy");
}

namespace {

bool records_gradients() { return call(loaded_torch()->is_grad_enabled).ptr() == Py_True; }

bool wants_gradient(py::handle tensor) {
    static PyObject* const requires_grad = PyUnicode_InternFromString("requires_grad");
    return attribute(tensor, requires_grad).ptr() == Py_True && records_gradients();
}

}  // namespace

bool needs_operator(py::handle object) {
    if (!is_torch_tensor(object)) return false;
    // Subclasses (of a tracer, a mesh of devices, a mode) have no memory of their own to point at.
    auto* const type = reinterpret_cast<PyObject*>(Py_TYPE(object.ptr()));
    const torch_module& torch = *loaded_torch();
    return (type != torch.tensor_type && type != torch.parameter_type) || wants_gradient(object);
}

void announce_write(py::handle q, py::handle k) {
    py::list written;
    for (const py::handle array : {q, k}) {
        if (is_torch_tensor(array)) written.append(array);
    }
    if (!written.empty()) call_with(loaded_torch()->increment_version, written);
}

void check_gradient(const array& a, const char* name, const char* function) {
    RW_EXPECTS(a.origin != array::library::torch || !wants_gradient(a.source),
               "{} requires grad, and {} would lose its gradient: pass {}.detach() or call under torch.no_grad()",
               describe(a, name), function, name);
}

namespace {

array read_and_keep(py::object made, const char* name) {
    array a = read_array(made, name);
    a.owner = std::move(made);
    return a;
}

}  // namespace

array copy_beside(py::handle object, const array& like, const char* name) {
    py::object copy;
    if (is_torch_tensor(object)) {
        py::object from = object.attr("contiguous")();
        // Pinned memory is read when the stream comes to it: the caller may have changed it, as a recording wants.
        if (from.attr("is_pinned")().cast<bool>() &&
            !py::module_::import("torch").attr("cuda").attr("is_current_stream_capturing")().cast<bool>())
            from = from.attr("clone")();
        copy = from.attr("to")(like.source.attr("device"), py::arg("non_blocking") = true);
    } else {
        const py::object numbers = py::module_::import("numpy").attr("asarray")(object);
        copy = py::module_::import("torch").attr("tensor")(numbers, py::arg("device") = like.source.attr("device"));
    }
    return read_and_keep(std::move(copy), name);
}

token_positions::token_positions(const Encoding& encoding, py::handle ids, std::int64_t offset, py::handle cu_seqlens,
                                 const array& like, const char* name)
    : name_(name) {
    const bool draws = static_cast<bool>(encoding.draw_positions);
    RW_EXPECTS(ids.is_none() || cu_seqlens.is_none(), "give either positions or cu_seqlens");
    if (!ids.is_none()) {
        RW_EXPECTS(offset == 0, "give either {} or an offset, got both and an offset of {}", name, offset);
        read(ids, name, encoding.has_axes() ? 3 : 2, like, draws);
        if (encoding.has_axes()) read_axes(encoding);
    } else if (!cu_seqlens.is_none()) {
        read(cu_seqlens, "cu_seqlens", 1, like, draws);
        where.source =
            where.source == positions::kind::ids32 ? positions::kind::cu_seqlens32 : positions::kind::cu_seqlens64;
    }
    where.first = offset;
}

namespace {

/// Has positions lie where they are read. A tensor that comes from a device is waited for.
void take_to(array& source, const char* name, const array& like, bool draws) {
    const bool with_torch = source.origin == array::library::torch;
    if (draws && with_torch && !source.on_host() && source.device == like.device) {
        source = read_and_keep(source.source.attr("cpu")(), name);
    } else if (!draws && source.on_host() && !like.on_host() && like.origin == array::library::torch) {
        source = copy_beside(source.source, like, name);
    } else if (!(draws && source.on_host())) {
        check_place(source, name, like);
    }
    const auto last = static_cast<std::size_t>(source.axes - 1);
    if (!source.on_host() && with_torch && source.strides[last] != 1 && source.shape[last] > 1)
        source = read_and_keep(source.source.attr("contiguous")(), name);
}

}  // namespace

void token_positions::read(py::handle object, const char* name, int most_axes, const array& like, bool draws) {
    source = is_array(object) ? read_array(object, name) : read_and_keep(as_numpy(object, name), name);
    RW_EXPECTS(source.type == number::i32 || source.type == number::i64, "{}: expected int32 or int64",
               describe(source, name));
    RW_EXPECTS(source.axes >= 1 && source.axes <= most_axes, "{}: expected [{}]{}", describe(source, name),
               most_axes == 1 ? "sequences + 1" : "tokens",
               most_axes == 1   ? ""
               : most_axes == 2 ? " or [batch, tokens]"
                                : ", [3, tokens] or [3, batch, tokens]");
    check_reach(source, name);
    take_to(source, name, like, draws);
    const bool rows = source.axes >= 2;
    const auto last = static_cast<std::size_t>(source.axes - 1), row = last - 1;
    where.source = source.type == number::i32 ? positions::kind::ids32 : positions::kind::ids64;
    where.data = source.data;
    where.count = source.shape[last];
    where.rows = rows ? source.shape[row] : 1;
    where.stride_row = rows ? source.strides[row] : 0;
    where.axes = source.axes == 3 ? source.shape[0] : 1;
    where.stride_axis = source.axes == 3 ? source.strides[0] : 0;
    const std::size_t size = source.type == number::i32 ? 4 : 8;
    const bool aligned = reinterpret_cast<std::uintptr_t>(source.data) % size == 0;
    if ((source.strides[last] == 1 || where.count <= 1) && aligned) return;
    RW_EXPECTS(source.on_host(), "{}: a row on a device must be contiguous (last stride 1)", describe(source, name));
    if (source.type == number::i32) copy_rows<std::int32_t>(source, copy);
    if (source.type == number::i64) copy_rows<std::int64_t>(source, copy);
    where.source = positions::kind::ids64;
    where.data = copy.data();
    where.stride_row = where.count;
    where.stride_axis = where.rows * where.count;
}

void token_positions::read_axes(const Encoding& encoding) {
    if (source.axes == 2) {  // [3, tokens]
        where.axes = where.rows, where.stride_axis = where.stride_row;
        where.rows = 1, where.stride_row = 0;
    }
    RW_EXPECTS(source.axes == 1 || where.axes == static_cast<std::int64_t>(position_axes),
               "{}: '{}' takes [tokens], [3, tokens] or [3, batch, tokens]", describe(source, name_),
               encoding.expression);
}

void token_positions::check_tokens(std::int64_t tokens) const {
    const bool ids = where.source == positions::kind::ids32 || where.source == positions::kind::ids64;
    RW_EXPECTS(!ids || where.count == tokens,
               "{} has {} entries for {} tokens: which axis is the tokens' is said by order", name_, where.count,
               tokens);
}

kept_table as_table(py::handle pair, const array& like) {
    if (pair.is_none()) return {};
    RW_EXPECTS(py::isinstance<py::sequence>(pair) && !is_array(pair) && py::len(pair) == 2,
               "table must be a pair (cos, sin), got {}", Py_TYPE(pair.ptr())->tp_name);
    py::object cos_object = pair[py::int_(0)], sin_object = pair[py::int_(1)];
    const array cos = read_array(cos_object, "cos"), sin = read_array(sin_object, "sin");
    for (const auto& [one, name] : {std::pair{&cos, "cos"}, std::pair{&sin, "sin"}})
        RW_EXPECTS(one->origin != array::library::torch || !wants_gradient(one->source),
                   "{} requires grad, but a table gets no gradient: pass {}.detach()", name, name);
    check_place(cos, "cos", like);
    check_place(sin, "sin", like);
    check_reach(cos, "cos");
    RW_EXPECTS(cos.axes == sin.axes && cos.shape == sin.shape && cos.strides == sin.strides && cos.type == sin.type,
               "cos and sin must be alike, got {} and {}", describe(cos, "cos"), describe(sin, "sin"));
    RW_EXPECTS(cos.type == number::f32 || cos.type == number::bf16, "{}: expected float32 or bfloat16",
               describe(cos, "cos"));
    RW_EXPECTS(
        cos.axes == 2 || cos.axes == 3,
        "{}: expected [positions, columns] or [batch or 1, tokens, columns], columns being rotary_dim or half of it",
        describe(cos, "cos"));
    const auto row = static_cast<std::size_t>(cos.axes - 2), column = row + 1;
    RW_EXPECTS(cos.strides[column] == 1 || cos.shape[column] <= 1, "{}: a row must be contiguous (last stride 1)",
               describe(cos, "cos"));
    cos_sin_table table{cos.data,       sin.data,          element_of(cos, "cos"),
                        cos.shape[row], cos.shape[column], cos.strides[row]};
    if (cos.axes == 3) {
        table.order = cos_sin_table::rows_are::by_token;
        table.batch = cos.shape[0];
        table.stride_batch = cos.strides[0];
    }
    if (cos.is_empty()) table.cos = table.sin = nothing;
    return {table, {std::move(cos_object), std::move(sin_object), cos.owner, sin.owner}};
}

int as_threads(py::handle threads) {
    if (!threads.is_none()) {
        const std::int64_t count = as_int64(threads, "threads");
        RW_EXPECTS(count >= 1, "threads must be at least 1, got {}", count);
        return static_cast<int>(std::min<std::int64_t>(count, 1 << 20));
    }
    const torch_module* const torch = loaded_torch();
    return torch == nullptr ? 0 : static_cast<int>(PyLong_AsLong(call(torch->get_num_threads).ptr()));
}

layout_kind as_layout(std::string_view name) {
    if (name == half_split::name) return layout_kind::half_split;
    if (name == interleaved::name) return layout_kind::interleaved;
    detail::fail("layout must be '{}' or '{}', got '{}'", half_split::name, interleaved::name, name);
}

}  // namespace ropewalk::python
