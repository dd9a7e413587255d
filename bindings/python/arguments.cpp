#include "arguments.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include <ropewalk/cpu/threads.hpp>
#include "order.hpp"

namespace ropewalk::python {

namespace {

struct axis_order {
    std::string_view name;
    int batch, token, head;  ///< -1: no such axis
};
constexpr std::array<axis_order, 6> axis_orders{
    {{"thd", -1, 0, 1}, {"bshd", 0, 1, 2}, {"bhsd", 0, 2, 1}, {"sbhd", 1, 0, 2}, {"hd", -1, -1, 0}, {"td", -1, 0, -1}}};

/// The address of every empty tensor, which is checked like any other.
alignas(64) char no_elements[64];

const axis_order& order_of(const array& a, const char* name, py::handle order) {
    if (order.is_none()) {
        RW_EXPECTS(
            a.axes == 3 || a.axes == 4,
            "{} has {} axes, expected [tokens, heads, head_dim] or [batch, tokens, heads, head_dim]; 2 axes need "
            "order='hd' (one token) or 'td' (one head), and 5 axes order='bs3hd' (packed q, k and v)",
            describe(a, name), a.axes);
        return axis_orders[a.axes == 3 ? 0 : 1];
    }
    const std::string_view text = as_text(order, "order");
    for (const axis_order& known : axis_orders) {
        if (known.name != text) continue;
        RW_EXPECTS(a.axes == static_cast<int>(text.size()), "{} has {} axes, but the order '{}' names {}",
                   describe(a, name), a.axes, text, text.size());
        return known;
    }
    detail::fail(
        "order must be 'thd', 'bshd', 'bhsd', 'sbhd', 'hd' or 'td', or one of them with a 3 for packed q, k and v, got "
        "'{}'",
        text);
}

element_type element_of(const array& a, const char* name) {
    switch (a.type) {
        case number::f32:
            return element_type::f32;
        case number::f16:
            return element_type::f16;
        case number::bf16:
            return element_type::bf16;
        case number::f64:
            return element_type::f64;
        default:
            detail::fail("{}: expected float32, float16, bfloat16 or float64", describe(a, name));
    }
}

/// The digits of an integer, or their number if Python writes no more of them.
std::string digits_of(py::handle integer) {
    const auto digits = py::reinterpret_steal<py::object>(PyObject_Str(integer.ptr()));
    if (digits) return std::string(as_text(digits, "integer"));
    PyErr_Clear();
    return "one of " + std::string(py::str(integer.attr("bit_length")())) + " bits";
}

[[noreturn]] void refuse_type(py::handle object, const char* name, const char* expected) {
    throw py::type_error(
        detail::format("ropewalk: {} must be {}, got {}", name, expected, Py_TYPE(object.ptr())->tp_name));
}

/// Throws the current Python error, but the TypeError of refuse_type() in place of a TypeError or ValueError. Objects
/// of libraries report those without the name of the argument.
[[noreturn]] void refuse_conversion(py::handle object, const char* name, const char* expected) {
    if (PyErr_ExceptionMatches(PyExc_TypeError) == 0 && PyErr_ExceptionMatches(PyExc_ValueError) == 0)
        throw py::error_already_set();
    PyErr_Clear();
    refuse_type(object, name, expected);
}

/// The Python number of a scalar of NumPy, PyTorch and other libraries, whose own conversions to float take booleans
/// and complex numbers, too. Other objects stay as they are.
py::object without_dtype(py::handle number, const char* name) {
    static PyObject* const dtype = PyUnicode_InternFromString("dtype");
    if (PyFloat_CheckExact(number.ptr()) != 0 || PyLong_CheckExact(number.ptr()) != 0 ||
        PyObject_HasAttr(number.ptr(), dtype) == 0)
        return py::reinterpret_borrow<py::object>(number);
    check_plain(number, name);
    try {
        return number.attr("item")();
    } catch (const py::error_already_set& problem) {  // several elements, tensors without memory
        if (!problem.matches(PyExc_Exception)) throw;
        refuse_type(number, name, "a number");
    }
}

/// True for a longdouble, which is its own item().
bool is_long_double(py::handle number) {
    return py::hasattr(number, "dtype") && py::str(number.attr("dtype").attr("kind")).equal(py::str("f"));
}

}  // namespace

std::string repr_of(py::handle object) {
    const auto text = py::reinterpret_steal<py::object>(PyObject_Repr(object.ptr()));
    Py_ssize_t size = 0;
    if (const char* const letters = text ? PyUnicode_AsUTF8AndSize(text.ptr(), &size) : nullptr) {
        std::string line(letters, static_cast<std::size_t>(size));
        for (char& letter : line)
            if (letter == '\n' || letter == '\0') letter = ' ';  // a message has one line, arrays have several rows
        return line;
    }
    PyErr_Clear();
    return detail::format("an object of {}", Py_TYPE(object.ptr())->tp_name);
}

py::object as_numpy(py::handle object, const char* name) {
    const py::module_ numpy = py::module_::import("numpy");
    try {
        if (PyRange_Check(object.ptr()) != 0) {
            return numpy.attr("arange")(object.attr("start"), object.attr("stop"), object.attr("step"),
                                        py::arg("dtype") = "int64");
        }
        check_plain(object, name);
        const py::object numbers = numpy.attr("asarray")(object);
        return numbers.attr("size").cast<std::int64_t>() == 0 ? numbers.attr("astype")("int64") : numbers;
    } catch (const py::error_already_set& problem) {  // rows of several lengths, numbers beyond 64 bits, other objects
        const bool is_type = problem.matches(PyExc_TypeError);
        if (!is_type && !problem.matches(PyExc_ValueError) && !problem.matches(PyExc_OverflowError)) throw;
        const std::string text = detail::format("{} cannot be int64: {}", name, std::string(py::str(problem.value())));
        if (is_type) throw py::type_error("ropewalk: " + text);
        detail::fail("{}", text);
    }
}

namespace {

/// Integers of any type on the host, along up to three axes. Strides are in entries.
struct integers {
    const void* data;
    number type;
    std::array<std::int64_t, 3> extent, stride;
};

template <class I>
std::vector<std::int64_t> copy_as(const integers& from) {
    std::vector<std::int64_t> copy;
    copy.reserve(static_cast<std::size_t>(from.extent[0] * from.extent[1] * from.extent[2]));
    const auto* const data = static_cast<const char*>(from.data);
    for (std::int64_t axis = 0; axis < from.extent[0]; ++axis) {
        for (std::int64_t row = 0; row < from.extent[1]; ++row) {
            for (std::int64_t column = 0; column < from.extent[2]; ++column) {
                const std::int64_t entry = axis * from.stride[0] + row * from.stride[1] + column * from.stride[2];
                I value{};  // memcpy: the address may be unaligned
                std::memcpy(&value, data + entry * static_cast<std::int64_t>(sizeof(I)), sizeof value);
                copy.push_back(value);
            }
        }
    }
    return copy;
}

/// The entries in row-major order.
std::vector<std::int64_t> copy_of(const integers& from) {
    switch (from.type) {
        case number::i8:
            return copy_as<std::int8_t>(from);
        case number::i16:
            return copy_as<std::int16_t>(from);
        case number::i32:
            return copy_as<std::int32_t>(from);
        case number::u8:
            return copy_as<std::uint8_t>(from);
        case number::u16:
            return copy_as<std::uint16_t>(from);
        case number::u32:
            return copy_as<std::uint32_t>(from);
        default:
            return copy_as<std::int64_t>(from);
    }
}

bool is_integer(number type) { return type >= number::i8 && type <= number::u32; }

}  // namespace

std::int64_t as_int64(py::handle number, const char* name) {
    constexpr const char* expected = "an integer";
    if (PyIndex_Check(number.ptr()) == 0 || PyBool_Check(number.ptr()) != 0) refuse_type(number, name, expected);
    const auto integer = py::reinterpret_steal<py::object>(PyNumber_Index(number.ptr()));
    if (!integer) refuse_conversion(number, name, expected);
    if (PyBool_Check(without_dtype(number, name).ptr()) != 0) refuse_type(number, name, expected);
    const long long value = PyLong_AsLongLong(integer.ptr());
    if (value == -1 && PyErr_Occurred() != nullptr) {
        if (PyErr_ExceptionMatches(PyExc_OverflowError) == 0) throw py::error_already_set();
        PyErr_Clear();
        detail::fail("{} must be an integer of 64 bits, got {}", name, digits_of(integer));
    }
    return value;
}

double as_double(py::handle number, const char* name) {
    constexpr const char* expected = "a number";
    const py::object plain = without_dtype(number, name);
    const bool is_float = PyFloat_Check(plain.ptr()) != 0;
    if (PyBool_Check(plain.ptr()) != 0 || (py::hasattr(plain, "dtype") && !is_float && !is_long_double(plain)))
        refuse_type(number, name, expected);
    const double value = PyFloat_AsDouble(plain.ptr());
    if (value == -1 && PyErr_Occurred() != nullptr) {
        if (PyErr_ExceptionMatches(PyExc_OverflowError) == 0) refuse_conversion(number, name, expected);
        PyErr_Clear();
        detail::fail("{} must be a number of 64 bits, got {}", name,
                     PyLong_Check(plain.ptr()) != 0 ? digits_of(plain) : repr_of(plain));
    }
    return value;
}

std::int64_t as_offset(py::handle number, const char* name) {
    if (PyLong_Check(number.ptr()) == 0 && (PyIndex_Check(number.ptr()) != 0 || PySequence_Check(number.ptr()) != 0)) {
        if (py::reinterpret_steal<py::object>(PyNumber_Index(number.ptr()))) return as_int64(number, name);
        if (PyErr_ExceptionMatches(PyExc_TypeError) == 0) throw py::error_already_set();
        PyErr_Clear();
        throw py::type_error(detail::format(
            "ropewalk: {} must be one integer, got {}; if sequences start at different positions, pass positions= "
            "[batch, tokens], for example starts[:, None] + arange(tokens)",
            name, repr_of(number)));
    }
    return as_int64(number, name);
}

token_offset as_token_offset(py::handle object, const char* name) {
    if (PyLong_CheckExact(object.ptr()) != 0) return {as_int64(object, name), {}, name};
    bool several = PySequence_Check(object.ptr()) != 0 && PyIndex_Check(object.ptr()) == 0 &&
                   PyUnicode_Check(object.ptr()) == 0 && PyBytes_Check(object.ptr()) == 0;
    if (!several && PyLong_Check(object.ptr()) == 0 && is_array(object)) {
        const array numbers = read_array(object, name);
        several = numbers.axes > 0 || !numbers.on_host();
    }
    if (several) return {0, object, name};
    return {as_offset(object, name), {}, name};
}

std::string_view as_text(py::handle text, const char* name) {
    if (PyUnicode_Check(text.ptr()) == 0) refuse_type(text, name, "text");
    Py_ssize_t size = 0;
    const char* const letters = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
    if (letters == nullptr) {
        if (PyErr_ExceptionMatches(PyExc_UnicodeEncodeError) == 0) throw py::error_already_set();
        PyErr_Clear();
        detail::fail("{} has a lone surrogate, which is no character", name);
    }
    const std::string_view characters(letters, static_cast<std::size_t>(size));
    RW_EXPECTS(characters.find('\0') == std::string_view::npos, "{} has a zero byte", name);
    return characters;
}

bool as_bool(py::handle truth, const char* name) {
    py::detail::make_caster<bool> caster;
    if (!caster.load(truth, false)) refuse_type(truth, name, "True or False");
    return py::detail::cast_op<bool>(caster);
}

int thread_count(py::handle threads) {
    if (!threads.is_none()) {
        const std::int64_t count = as_int64(threads, "threads");
        RW_EXPECTS(count >= 1 && count <= cpu::most_threads, "threads must be from 1 to {}, got {}", cpu::most_threads,
                   count);
        return static_cast<int>(count);
    }
    const torch_module* const torch = loaded_torch();
    if (torch == nullptr) return 0;
    return static_cast<int>(std::min<long>(PyLong_AsLong(call(torch->get_num_threads).ptr()), cpu::most_threads));
}

const Encoding& as_encoding(py::handle object, const char* name) {
    py::detail::make_caster<Encoding> caster;
    if (object.is_none() || !caster.load(object, false)) {
        throw py::type_error(
            detail::format("ropewalk: {} must be a ropewalk.Encoding, got {}; call ropewalk.encoding()", name,
                           Py_TYPE(object.ptr())->tp_name));
    }
    return py::detail::cast_op<const Encoding&>(caster);
}

tensor as_tensor(const array& a, const char* name, py::handle order) {
    const axis_order& axes = order_of(a, name, order);
    const auto shape = [&a](int axis) { return axis < 0 ? 1 : a.shape[static_cast<std::size_t>(axis)]; };
    const auto stride = [&a](int axis) { return axis < 0 ? 0 : a.strides[static_cast<std::size_t>(axis)]; };
    const int last = a.axes - 1;
    tensor t{.data = a.data,
             .type = element_of(a, name),
             .batch = shape(axes.batch),
             .tokens = shape(axes.token),
             .heads = shape(axes.head),
             .head_dim = shape(last),
             .stride_batch = stride(axes.batch),
             .stride_token = stride(axes.token),
             .stride_head = stride(axes.head),
             .stride_element = stride(last)};
    if (t.elements() == 0) t.data = no_elements;
    return t;
}

void check_writable(const array& a, const char* name, const char* function) {
    RW_EXPECTS(a.writable, "{} is read-only and {} would write it; {}", describe(a, name), function,
               std::string_view(function) == "rotate" ? "pass writable memory" : "use rotate(), or pass a copy");
}

void check_gradient(const array& a, const char* name, const char* function) {
    RW_EXPECTS(a.origin != array::library::torch || !wants_gradient(a.source),
               "{} requires grad, and {} would lose its gradient; pass {}.detach() or call under torch.no_grad()",
               describe(a, name), function, name);
}

namespace {

array read_and_own(py::object object, const char* name) {
    array a = read_array(object, name);
    a.owner = std::move(object);
    return a;
}

}  // namespace

array copy_to_device(py::handle object, const array& like, const char* name) {
    py::object copy;
    if (is_torch_tensor(object)) {
        py::object rows = object.attr("contiguous")();
        // A copy from pinned memory runs later, so a clone protects it from writes until then. While a CUDA graph is
        // captured there is no clone: each replay must read the current values.
        if (rows.attr("is_pinned")().cast<bool>() &&
            !py::module_::import("torch").attr("cuda").attr("is_current_stream_capturing")().cast<bool>())
            rows = rows.attr("clone")();
        copy = rows.attr("to")(like.source.attr("device"), py::arg("non_blocking") = true);
    } else {
        const py::object numbers = py::module_::import("numpy").attr("asarray")(object);
        copy = py::module_::import("torch").attr("tensor")(numbers, py::arg("device") = like.source.attr("device"));
    }
    return read_and_own(std::move(copy), name);
}

namespace {

/// The length of a list of numbers or of a range, whose copy in NumPy may be far longer than the object; -1 for others.
std::int64_t length_of(py::handle object) {
    const bool range = PyRange_Check(object.ptr()) != 0;
    if (!range && PyList_CheckExact(object.ptr()) == 0 && PyTuple_CheckExact(object.ptr()) == 0) return -1;
    const Py_ssize_t length = PyObject_Size(object.ptr());
    if (length < 0) PyErr_Clear();  // a range beyond 64 bits, which NumPy refuses
    const bool numbers = range || (length > 0 && PyLong_Check(object[py::int_(0)].ptr()) != 0);
    return numbers ? length : -1;
}

void check_count(std::int64_t count, const tensor& rotated, const array& like, py::handle order, const char* name) {
    RW_EXPECTS(count == rotated.tokens, "{} has {} entries for {} tokens{}", name, count, rotated.tokens,
               order_hint(like, order, count));
}

}  // namespace

token_positions::token_positions(const Encoding& encoding, py::handle ids, const token_offset& offset,
                                 py::handle cu_seqlens, const array& like, const tensor* rotated, py::handle order,
                                 const char* name) {
    const bool draws = static_cast<bool>(encoding.draw_positions);
    RW_EXPECTS(ids.is_none() || cu_seqlens.is_none(), "positions and cu_seqlens exclude each other; pass one of them");
    if (!ids.is_none()) {
        RW_EXPECTS(offset.first == 0 && !offset.each,
                   "{} and an offset exclude each other, got both and an offset of {}", name,
                   offset.each ? repr_of(offset.each) : std::to_string(offset.first));
        const std::int64_t length = rotated == nullptr ? -1 : length_of(ids);
        if (length >= 0) check_count(length, *rotated, like, order, name);
        read_shape(ids, name, encoding.has_axes() ? 3 : 2);
        if (encoding.has_axes()) split_axes(encoding, like.axes >= 4, name);
        if (rotated != nullptr) check_ids(*rotated, like, order, name);
        load(name, like, draws);
    } else if (!cu_seqlens.is_none()) {
        const std::int64_t length =
            rotated != nullptr && PyRange_Check(cu_seqlens.ptr()) != 0 ? length_of(cu_seqlens) : -1;
        RW_EXPECTS(length < 0 || length <= rotated->tokens + 1, "cu_seqlens has {} entries for {} tokens", length,
                   rotated->tokens);
        read_shape(cu_seqlens, "cu_seqlens", 1);
        if (rotated != nullptr && source.on_host() && value.count > 0) check_sequences(rotated->tokens);
        if (offset.each) load_offsets(offset, std::max<std::int64_t>(value.count, 1) - 1, true, like, draws);
        // A repeated start is many empty sequences, and two entries say the same.
        if (source.on_host() && source.strides[0] == 0 && !value.offsets.exists())
            value.count = std::min<std::int64_t>(value.count, 2);
        load("cu_seqlens", like, draws);
        value.source =
            value.source == positions::kind::ids32 ? positions::kind::cu_seqlens32 : positions::kind::cu_seqlens64;
    } else if (offset.each) {
        load_offsets(offset, rotated == nullptr ? -1 : rotated->batch, false, like, draws);
        value.source = positions::kind::row_offsets;
    }
    value.first = offset.first;
}

namespace {

/// Converts the integers that kernels do not read to int64, in the memory where they are.
void widen(array& source, const char* name) {
    if (source.type == number::i32 || source.type == number::i64) return;
    const bool with_torch = source.origin == array::library::torch;
    RW_EXPECTS(with_torch || source.on_host(), "{}: expected int32 or int64 on {}", describe(source, name),
               device_name(source));
    if (with_torch) {
        source = read_and_own(source.source.attr("to")(py::handle(loaded_torch()->int64)), name);
    } else {
        source = read_and_own(py::module_::import("numpy").attr("asarray")(source.source, "int64"), name);
    }
}

/// Moves positions to the device that reads them: to the host if the encoding draws from them, else to that of `like`.
/// A copy from a device to the host is waited for.
void move_to_reader(array& source, const char* name, const array& like, bool draws) {
    const bool with_torch = source.origin == array::library::torch;
    if (draws && with_torch && !source.on_host() && source.device == like.device) {
        source = read_and_own(source.source.attr("cpu")(), name);
    } else if (!draws && source.on_host() && !like.on_host() && like.origin == array::library::torch) {
        source = copy_to_device(source.source, like, name);
    } else if (!(draws && source.on_host())) {
        check_device(source, name, like);
    }
    const auto last = static_cast<std::size_t>(source.axes - 1);
    if (!source.on_host() && with_torch && source.strides[last] != 1 && source.shape[last] > 1)
        source = read_and_own(source.source.attr("contiguous")(), name);
}

}  // namespace

void token_positions::read_shape(py::handle object, const char* name, int max_axes) {
    constexpr std::array<const char*, 3> shapes{"[sequences + 1]", "[tokens] or [batch, tokens]",
                                                "[tokens], [batch, tokens] or [1 or 3, batch, tokens]"};
    RW_EXPECTS(!PyLong_Check(object.ptr()),
               "{} must have one entry per token, got the number {}; pass a list, or offset= for consecutive positions",
               name, digits_of(object));
    source = is_array(object) ? read_array(object, name) : read_and_own(as_numpy(object, name), name);
    RW_EXPECTS(is_integer(source.type), "{}: expected int64, or integers of at most 32 bits", describe(source, name));
    RW_EXPECTS(source.axes >= 1 && source.axes <= max_axes, "{}: expected {}", describe(source, name),
               shapes[static_cast<std::size_t>(max_axes - 1)]);
    RW_EXPECTS(source.data != nullptr || source.is_empty(),
               "{} has no memory here, like a DTensor or a fake tensor; pass its local tensor", describe(source, name));
    check_reach(source, name);
    const auto last = static_cast<std::size_t>(source.axes - 1);
    value.count = source.shape[last];
    if (source.axes >= 2) value.rows = source.shape[last - 1];
    if (source.axes == 3) value.axes = source.shape[0];
}

void token_positions::split_axes(const Encoding& encoding, bool batched, const char* name) {
    constexpr auto several = static_cast<std::int64_t>(position_axes);
    if (source.axes == 2 && batched) {
        // Three rows could be three axes or three batch rows. The answer must not depend on the size of the batch.
        RW_EXPECTS(value.rows != several,
                   "{} could be t, h and w or a batch of 3 with one position per token; pass {}[:, None] ([3, 1, "
                   "tokens]) for t, h and w, or {}[None] ([1, batch, tokens]) for one position per token",
                   describe(source, name), name, name);
    } else if (source.axes == 2) {
        value.axes = value.rows, value.rows = 1;
    }
    RW_EXPECTS(value.axes == 1 || value.axes == several, "{}: '{}' needs [tokens], {} or [1 or 3, batch, tokens]",
               describe(source, name), encoding.expression, batched ? "[batch, tokens]" : "[3, tokens]");
}

void token_positions::check_ids(const tensor& rotated, const array& like, py::handle order, const char* name) const {
    check_count(value.count, rotated, like, order, name);
    RW_EXPECTS(value.rows == 1 || value.rows == rotated.batch, "{} has {} rows for a batch of {}", name, value.rows,
               rotated.batch);
}

void token_positions::check_sequences(std::int64_t tokens) const {
    const std::vector<std::int64_t> ends =
        copy_of({source.data, source.type, {1, 1, 2}, {0, 0, (value.count - 1) * source.strides[0]}});
    RW_EXPECTS(ends[0] == 0, "cu_seqlens must begin with 0, got {}", ends[0]);
    RW_EXPECTS(ends[1] >= tokens,
               "cu_seqlens ends with {} but there are {} tokens; pass padded_tail=True if the tokens after it are "
               "padding",
               ends[1], tokens);
}

void token_positions::load(const char* name, const array& like, bool draws) {
    if (!source.on_host() || !like.on_host()) widen(source, name);
    move_to_reader(source, name, like, draws);
    const auto last = static_cast<std::size_t>(source.axes - 1);
    const std::int64_t stride = source.strides[last], next = source.axes >= 2 ? source.strides[last - 1] : 0;
    if (value.rows > 1) value.stride_row = next;
    if (value.axes > 1) value.stride_axis = source.axes == 3 ? source.strides[0] : next;
    const bool narrow = source.type == number::i32;
    value.source = narrow ? positions::kind::ids32 : positions::kind::ids64;
    value.data = source.data;
    const bool aligned = reinterpret_cast<std::uintptr_t>(source.data) % (narrow ? 4 : 8) == 0;
    const bool readable = narrow || source.type == number::i64;
    if ((stride == 1 || value.count <= 1) && aligned && readable) return;
    RW_EXPECTS(source.on_host(), "{}: a row on a device must be contiguous (last stride 1)", describe(source, name));
    // Repeated rows and axes are copied once.
    const std::int64_t rows = value.stride_row == 0 ? 1 : value.rows, axes = value.stride_axis == 0 ? 1 : value.axes;
    copy =
        copy_of({source.data, source.type, {axes, rows, value.count}, {value.stride_axis, value.stride_row, stride}});
    value.source = positions::kind::ids64;
    value.data = copy.data();
    if (rows > 1) value.stride_row = value.count;
    if (axes > 1) value.stride_axis = rows * value.count;
}

void token_positions::load_offsets(const token_offset& given, std::int64_t sequences, bool ragged, const array& like,
                                   bool draws) {
    const char* const name = given.name;
    const auto check_entries = [&](std::int64_t count) {
        const char* const what = ragged ? sequences == 1 ? "sequence of cu_seqlens" : "sequences of cu_seqlens"
                                 : sequences == 1 ? "batch row; packed sequences need cu_seqlens="
                                                  : "batch rows";
        RW_EXPECTS(sequences < 0 || count == 1 || count == sequences, "{} has {} entries for {} {}", name, count,
                   sequences, what);
    };
    const std::int64_t length = length_of(given.each);  // a range may be longer than memory
    if (length >= 0) check_entries(length);
    offsets = is_array(given.each) ? read_array(given.each, name) : read_and_own(as_numpy(given.each, name), name);
    RW_EXPECTS(is_integer(offsets.type), "{}: expected int64, or integers of at most 32 bits", describe(offsets, name));
    RW_EXPECTS(offsets.axes <= 1, "{}: expected an integer or [sequences]", describe(offsets, name));
    const std::int64_t count = offsets.axes == 0 ? 1 : offsets.shape[0];
    check_entries(count);
    RW_EXPECTS(offsets.data != nullptr || count == 0,
               "{} has no memory here, like a DTensor or a fake tensor; pass its local tensor",
               describe(offsets, name));
    check_reach(offsets, name);
    if (!offsets.on_host() || !like.on_host()) widen(offsets, name);
    if (offsets.axes > 0) {
        move_to_reader(offsets, name, like, draws);
    } else if (draws && !offsets.on_host()) {
        offsets = read_and_own(offsets.source.attr("cpu")(), name);
    } else {
        check_device(offsets, name, like);
    }
    value.offsets.count = count;
    value.offsets.wide = offsets.type != number::i32;
    value.offsets.data = offsets.data;
    const std::int64_t stride = offsets.axes == 0 ? 1 : offsets.strides[0];
    const bool aligned = reinterpret_cast<std::uintptr_t>(offsets.data) % (value.offsets.wide ? 8 : 4) == 0;
    const bool readable = offsets.type == number::i32 || offsets.type == number::i64;
    if ((stride == 1 || count <= 1) && aligned && readable) return;
    RW_EXPECTS(offsets.on_host(), "{} on a device must be contiguous (stride 1)", describe(offsets, name));
    offsets_copy = copy_of({offsets.data, offsets.type, {1, 1, count}, {0, 0, stride}});
    value.offsets.wide = true;
    value.offsets.data = offsets_copy.data();
}

bool table_wants_gradient(py::handle table) {
    const auto wants = [](py::handle x) { return is_torch_tensor(x) && wants_gradient(x); };
    if (table.is_none()) return false;
    if (PyTuple_Check(table.ptr()) == 0 && PyList_Check(table.ptr()) == 0) return wants(table);
    const auto entries = py::reinterpret_borrow<py::sequence>(table);
    return std::any_of(entries.begin(), entries.end(), wants);
}

namespace {

/// A table in one array. `columns` are those of its cosines.
owned_table as_cos_sin_cache(py::handle object, const array& like, std::int64_t columns) {
    const array cache = read_array(object, "table");
    check_device(cache, "table", like);
    check_reach(cache, "table");
    RW_EXPECTS(cache.axes == 2,
               "{}: expected [positions, {}] with {} cosines and {} sines per row, or a pair (cos, sin)",
               describe(cache, "table"), 2 * columns, columns, columns);
    RW_EXPECTS(cache.shape[1] == 2 * columns,
               "{} must have {} columns, {} cosines and {} sines; other tables are a pair (cos, sin)",
               describe(cache, "table"), 2 * columns, columns, columns);
    RW_EXPECTS(cache.strides[1] == 1, "{}: a row must be contiguous (last stride 1)", describe(cache, "table"));
    const element_type type = element_of(cache, "table");
    cos_sin_table table{
        .cos = cache.data,
        .sin = static_cast<const char*>(cache.data) + columns * static_cast<std::int64_t>(size_of(type)),
        .type = type,
        .rows = cache.shape[0],
        .columns = columns,
        .stride_row = cache.strides[0]};
    if (cache.is_empty()) table.cos = table.sin = no_elements;
    return {table, cache, {}, py::reinterpret_borrow<py::object>(object), {}};
}

}  // namespace

owned_table as_table(py::handle pair, const array& like, const Encoding* encoding) {
    if (pair.is_none()) return {};
    RW_EXPECTS(!table_wants_gradient(pair),
               "the table requires grad, and this call would lose its gradient; detach it");
    const bool listed = PyTuple_Check(pair.ptr()) != 0 || PyList_Check(pair.ptr()) != 0;
    if (!listed && encoding != nullptr && is_array(pair)) return as_cos_sin_cache(pair, like, encoding->pairs());
    RW_EXPECTS(py::isinstance<py::sequence>(pair) && (listed || !is_array(pair)) && py::len(pair) == 2,
               "table must be a pair (cos, sin) or one array [positions, rotary_dim], got {}",
               Py_TYPE(pair.ptr())->tp_name);
    py::object cos_object = pair[py::int_(0)], sin_object = pair[py::int_(1)];
    const array cos = read_array(cos_object, "cos"), sin = read_array(sin_object, "sin");
    check_device(cos, "cos", like);
    check_device(sin, "sin", like);
    check_reach(cos, "cos");
    RW_EXPECTS(cos.axes == sin.axes && cos.shape == sin.shape && cos.strides == sin.strides && cos.type == sin.type,
               "cos and sin must have the same type, shape and strides, got {} and {}", describe(cos, "cos"),
               describe(sin, "sin"));
    RW_EXPECTS(
        cos.axes == 2 || cos.axes == 3,
        "{}: expected [positions, columns] or [batch or 1, tokens, columns], columns being rotary_dim or half of it",
        describe(cos, "cos"));
    const auto row = static_cast<std::size_t>(cos.axes - 2), column = row + 1;
    RW_EXPECTS(cos.strides[column] == 1 || cos.shape[column] <= 1, "{}: a row must be contiguous (last stride 1)",
               describe(cos, "cos"));
    cos_sin_table table{.cos = cos.data,
                        .sin = sin.data,
                        .type = element_of(cos, "cos"),
                        .rows = cos.shape[row],
                        .columns = cos.shape[column],
                        .stride_row = cos.strides[row]};
    if (cos.axes == 3) {
        table.order = cos_sin_table::rows_are::by_token;
        table.batch = cos.shape[0];
        table.stride_batch = cos.strides[0];
    }
    if (cos.is_empty()) table.cos = table.sin = no_elements;
    return {table, cos, sin, std::move(cos_object), std::move(sin_object)};
}

}  // namespace ropewalk::python
