#include "caches.hpp"

#include "arguments.hpp"

namespace ropewalk::python {

cache_type cache_type_of(const array& a, const char* name, std::string_view cache_dtype) {
    switch (a.type) {
        case number::f32:
            return cache_type::f32;
        case number::f16:
            return cache_type::f16;
        case number::bf16:
            return cache_type::bf16;
        case number::f8e4m3:
            return cache_type::f8e4m3;
        case number::f8e5m2:
            return cache_type::f8e5m2;
        case number::i8:
            return cache_type::i8;
        case number::u8:
            RW_EXPECTS(!cache_dtype.empty(),
                       "{}: uint8 can be the bytes of either 8-bit float; pass cache_dtype='float8_e4m3fn' or "
                       "'float8_e5m2'",
                       describe(a, name));
            return cache_dtype == "float8_e5m2" ? cache_type::f8e5m2 : cache_type::f8e4m3;
        default:
            detail::fail("{}: expected float32, float16, bfloat16, float8_e4m3fn, float8_e5m2 or int8",
                         describe(a, name));
    }
}

cache_tensor cache_over(const array& a, const char* name, const head_axes& axes, cache_type type) {
    const auto extent = [&](int axis) { return axis < 0 ? 1 : a.shape[static_cast<std::size_t>(axis)]; };
    const auto stride = [&](int axis) { return axis < 0 ? 0 : a.strides[static_cast<std::size_t>(axis)]; };
    const int last = a.axes - 1;
    RW_EXPECTS(stride(last) == 1 || extent(last) <= 1, "{}: the elements of a head must be contiguous (last stride 1)",
               describe(a, name));
    RW_EXPECTS(a.data != nullptr || a.is_empty(), "{} has no memory here, like a DTensor or a fake tensor",
               describe(a, name));
    alignas(64) static char no_elements[64];
    return {.data = a.is_empty() ? no_elements : a.data,
            .type = type,
            .pages = extent(axes[0]),
            .page_size = extent(axes[1]),
            .heads = extent(axes[2]),
            .head_dim = extent(last),
            .stride_page = stride(axes[0]),
            .stride_token = stride(axes[1]),
            .stride_head = stride(axes[2])};
}

array with_element_axis(const array& scales) {
    array heads = scales;
    const auto last = static_cast<std::size_t>(heads.axes++);
    heads.shape[last] = heads.strides[last] = 1;
    return heads;
}

std::int64_t count_of(const array& a) {
    std::int64_t count = 1;
    for (int axis = 0; axis < a.axes; ++axis) count *= a.shape[static_cast<std::size_t>(axis)];
    return count;
}

head_axes axes_of_cache(const array& a, const char* name, std::string_view order, bool one_head) {
    if (one_head && a.axes == 3) return {0, 1, -1};
    RW_EXPECTS(a.axes == 4, "{}: expected {}", describe(a, name),
               one_head         ? "[pages, page_size, dim]"
               : order == "nhd" ? "[pages, page_size, heads, head_dim]"
                                : "[pages, heads, page_size, head_dim]");
    return order == "nhd" ? head_axes{0, 1, 2} : head_axes{0, 2, 1};
}

std::string_view read_cache_dtype(py::handle dtype) {
    if (dtype.is_none()) return "";
    const std::string text = PyUnicode_Check(dtype.ptr()) != 0 ? std::string(as_text(dtype, "cache_dtype"))
                             : py::hasattr(dtype, "itemsize") && !is_array(dtype) ? std::string(py::str(dtype))
                                                                                  : std::string();
    RW_EXPECTS(!text.empty() || PyUnicode_Check(dtype.ptr()) != 0, "cache_dtype must be the name of a type, got {}",
               Py_TYPE(dtype.ptr())->tp_name);
    for (const char* const name : {"float8_e4m3fn", "torch.float8_e4m3fn", "fp8", "fp8_e4m3"})
        if (text == name) return "float8_e4m3fn";
    for (const char* const name : {"float8_e5m2", "torch.float8_e5m2", "fp8_e5m2"})
        if (text == name) return "float8_e5m2";
    detail::fail("cache_dtype must be 'float8_e4m3fn' or 'float8_e5m2', got '{}'", text);
}

array read_indices(py::handle object, const char* name, const array& like, int max_axes, bool wide) {
    array a;
    if (is_array(object)) {
        a = read_array(object, name);
    } else {
        py::object numbers = as_numpy(object, name);
        if (!wide) {
            const py::object narrow = numbers.attr("astype")("int32");
            RW_EXPECTS(py::module_::import("numpy").attr("array_equal")(narrow, numbers).cast<bool>(),
                       "{} has entries beyond 32 bits", name);
            numbers = narrow;
        }
        a = read_array(numbers, name);
        a.owner = std::move(numbers);
    }
    RW_EXPECTS(a.type == number::i32 || (wide && a.type == number::i64), "{}: expected int32{}", describe(a, name),
               wide ? " or int64" : "");
    RW_EXPECTS(a.axes >= 1 && a.axes <= max_axes, "{}: expected {} {}", describe(a, name), max_axes,
               max_axes == 1 ? "axis" : "axes");
    RW_EXPECTS(a.data != nullptr || a.is_empty(), "{} has no memory here, like a DTensor or a fake tensor",
               describe(a, name));
    check_reach(a, name);
    if (a.on_host() && !like.on_host() && like.origin == array::library::torch)
        return copy_to_device(a.source, like, name);
    check_device(a, name, like);
    return a;
}

cache_slots slots_by_mapping(const array& mapping) {
    cache_slots slots;
    slots.source = mapping.type == number::i32 ? cache_slots::kind::mapping32 : cache_slots::kind::mapping64;
    slots.mapping = mapping.data, slots.count = count_of(mapping);
    return slots;
}

cache_slots slots_by_page_table(const array& table, const positions& entries) {
    RW_EXPECTS(table.axes == 2, "{}: expected [sequences, max_pages]", describe(table, "page_table"));
    RW_EXPECTS(table.strides[1] == 1 || table.shape[1] <= 1, "{}: a row must be contiguous (last stride 1)",
               describe(table, "page_table"));
    return {.source = cache_slots::kind::page_table,
            .entries = entries,
            .table = static_cast<const std::int32_t*>(table.data),
            .sequences = table.shape[0],
            .max_pages = table.shape[1],
            .stride_sequence = table.strides[0]};
}

}  // namespace ropewalk::python
