// The functions rotate_, rotate and rerotate_ of the module: read the arguments, release the GIL, run.

#include <initializer_list>
#include <optional>
#include <utility>

#include <ropewalk/cpu/plan.hpp>
#include <ropewalk/rotation/validate.hpp>

#include <ropewalk/dispatch.hpp>
#include "arguments.hpp"
#include "bindings.hpp"
#include "cuda.hpp"
#include "dispatch/huge_pages.hpp"
#include "order.hpp"

namespace ropewalk::python {

namespace {

/// A call on fewer bytes takes less time than releasing and taking the GIL.
constexpr std::int64_t quick_bytes = 64 * 1024;

std::int64_t bytes_of(const tensor& t) { return t.elements() * static_cast<std::int64_t>(size_of(t.type)); }

/// The arguments of rotate_() and rotate() as Python passes them. `offset` and `threads` stay objects until the call is
/// known to be no operator: in a graph they are symbols, and reading a symbol would limit the graph to its value.
struct python_arguments {
    py::object q, k;
    py::handle encoding, ids, offset, cu_seqlens, order;
    bool inverse, adjoint;
    py::handle table, threads;
    const char *ids_name = "positions", *offset_name = "offset";
};

/// The integers of a call, read before the address of any array: `__index__` may move an array. Without `threads` the
/// number is that of PyTorch or OpenMP.
struct call_integers {
    token_offset offset;
    int threads;

    explicit call_integers(const python_arguments& given)
        : offset(as_token_offset(given.offset, given.offset_name)),
          threads(given.threads.is_none() ? 0 : thread_count(given.threads)) {}
};

/// Throws if Python code has moved an array while the arguments were read.
void check_unmoved(std::initializer_list<std::pair<const array*, const char*>> arrays) {
    for (const auto& [memory, name] : arrays) check_unmoved(*memory, name);
}

/// True if reading a table, one array or (cos, sin), runs no Python code.
bool is_passive_table(py::handle table) {
    if (is_passive(table)) return true;
    if (PyTuple_CheckExact(table.ptr()) == 0 || PyTuple_GET_SIZE(table.ptr()) != 2) return false;
    return is_passive(PyTuple_GET_ITEM(table.ptr(), 0)) && is_passive(PyTuple_GET_ITEM(table.ptr(), 1));
}

/// The arguments that rotate_() and rotate() have in common, except for q and k.
struct rotation {
    const array& like;  ///< q or k; the call runs on its device
    bool ran_python;    ///< reading the arguments may have run Python code
    const Encoding& encoding;
    py::handle order;
    token_positions positions;
    owned_table table;
    cpu::options options;

    /// `rotated` is the view of `like`.
    rotation(const array& like_, const tensor& rotated, const call_integers& numbers, const python_arguments& given)
        : like(like_),
          ran_python(!is_passive(given.ids) || !is_passive(given.cu_seqlens) || !is_passive_table(given.table) ||
                     (numbers.offset.each && !is_passive(numbers.offset.each))),
          encoding(as_encoding(given.encoding)),
          order(given.order),
          positions(encoding, given.ids, numbers.offset, given.cu_seqlens, like, &rotated, order, given.ids_name),
          table(as_table(given.table, like, &encoding)) {
        options.direction = given.inverse   ? (given.adjoint ? direction::inverse_adjoint : direction::inverse)
                            : given.adjoint ? direction::adjoint
                                            : direction::forward;
        options.table = table.value;
        options.threads = numbers.threads == 0 && like.on_host() ? thread_count(py::none()) : numbers.threads;
        if (ran_python)
            check_unmoved({{&positions.source, given.ids_name},
                           {&positions.offsets, given.offset_name},
                           {&table.cos, "cos"},
                           {&table.sin, "sin"}});
    }

    void run(const tensor& q, const tensor& k, const tensor& q_out, const tensor& k_out) const {
        check_table_tokens(q.exists() ? q.tokens : k.tokens);
        if (!like.on_host()) return run_on_device(like, args(q, k, q_out, k_out));
        std::optional<py::gil_scoped_release> released;
        if (bytes_of(q) + bytes_of(k) > quick_bytes) released.emplace();
        dispatch::rotate(*encoding.geometry.layout, q, k, q_out, k_out, encoding, positions.value, options);
    }

    /// Throws what run() would throw.
    void check(const tensor& q, const tensor& k, const tensor& q_out, const tensor& k_out) const {
        check_table_tokens(q.exists() ? q.tokens : k.tokens);
        if (!like.on_host()) return check_on_device(like, args(q, k, q_out, k_out));
        (void)cpu::make_plan(args(q, k, q_out, k_out));
    }

private:
    [[nodiscard]] rotate_args args(const tensor& q, const tensor& k, const tensor& q_out, const tensor& k_out) const {
        return rotation_args(*encoding.geometry.layout, q, k, q_out, k_out, encoding, positions.value,
                             options.direction, options.table);
    }

    /// Throws for a table with a row per token that has the tokens of another axis. More rows than tokens are allowed.
    void check_table_tokens(std::int64_t tokens) const {
        const cos_sin_table& t = table.value;
        if (!order.is_none() || t.order != cos_sin_table::rows_are::by_token || t.rows == tokens || like.axes != 4)
            return;
        RW_EXPECTS(t.rows != like.shape[2], "the table has {} rows for {} tokens{}", t.rows, tokens,
                   order_hint(like, order, t.rows));
    }
};

/// The package takes NotImplemented as the request to make the call another way.
py::object not_implemented() { return py::reinterpret_borrow<py::object>(Py_NotImplemented); }

/// True if the call consists of simpler ones: packed q, k and v, or an encoding per sequence.
bool is_composite(const python_arguments& given) {
    if (PyList_Check(given.encoding.ptr()) != 0 || PyTuple_Check(given.encoding.ptr()) != 0) return true;
    return PyUnicode_Check(given.order.ptr()) != 0 &&
           PyUnicode_FindChar(given.order.ptr(), '3', 0, PyUnicode_GET_LENGTH(given.order.ptr()), 1) >= 0;
}

/// True if the package makes the call: by an operator that PyTorch must see, or by simpler calls. Throws if there is
/// nothing to rotate.
bool is_for_package(const python_arguments& given, bool inside_operator) {
    RW_EXPECTS(!given.q.is_none() || !given.k.is_none(), "q and k are both None; pass at least one of them");
    if (!inside_operator && is_composite(given)) return true;
    if (inside_operator || !(is_torch_tensor(given.q) || is_torch_tensor(given.k))) return false;
    return torch_observes() || needs_operator(given.q) || needs_operator(given.k) || table_wants_gradient(given.table);
}

/// q, k or (q, k), without None.
py::object results(const py::object& q, const py::object& k) {
    if (k.is_none()) return q;
    if (q.is_none()) return k;
    return py::make_tuple(q, k);
}

/// An array that is written, and its view. The view of None is absent.
struct output {
    array memory;
    tensor view;

    output() = default;
    output(py::handle object, const char* name, const char* function, py::handle order) {
        if (object.is_none()) return;
        memory = read_array(object, name);
        view = as_tensor(memory, name, order);
        check_writable(memory, name, function);
    }
};

/// Returns q, or k if there is no q. Throws if they are on different devices.
const array& on_one_device(const array& q, const array& k) {
    if (!q.source) return k;
    if (k.source) check_device(k, "k", q);
    return q;
}

void check_tokens(const tensor& q, const tensor& k) {
    RW_EXPECTS(!q.exists() || !k.exists() || q.tokens == k.tokens || q.batch != k.batch,
               "q and k must have the same batch and tokens, got {} tokens of q and {} of k; keys at positions of "
               "their own need k_positions= or k_offset=",
               q.tokens, k.tokens);
}

py::object rotate_in_place(const python_arguments& given, bool inside_operator) {
    if (is_for_package(given, inside_operator)) return not_implemented();
    const call_integers numbers(given);
    const output q(given.q, "q", "rotate_", given.order), k(given.k, "k", "rotate_", given.order);
    const bool warned = check_order(q.memory, k.memory, given.order, !inside_operator);
    check_tokens(q.view, k.view);
    const array& like = on_one_device(q.memory, k.memory);
    const rotation rotation(like, q.memory.source ? q.view : k.view, numbers, given);
    if (warned || rotation.ran_python || !is_passive(given.q) || !is_passive(given.k))
        check_unmoved({{&q.memory, "q"}, {&k.memory, "k"}});
    rotation.run(q.view, k.view, q.view, k.view);
    count_write(given.q, given.k);
    return results(given.q, given.k);
}

/// Throws what rotate_() would throw for q and k together, which autograd writes one after the other.
void check_pair(const py::object& q_object, const py::object& k_object, py::handle encoding, py::handle order) {
    const output q(q_object, "q", "rotate_", order), k(k_object, "k", "rotate_", order);
    on_one_device(q.memory, k.memory);
    check_order(q.memory, k.memory, order, true);
    detail::check_tensors({.q_in = q.view, .k_in = k.view, .q_out = q.view, .k_out = k.view},
                          as_encoding(encoding).geometry.head_dim);
}

/// Throws what rotate_() or, with outputs or without any, rotate() would throw. Calls that PyTorch must see are checked
/// as they run.
void check_rotation(const py::object& q_object, const py::object& k_object, const py::object& q_out_object,
                    const py::object& k_out_object, py::handle encoding, py::handle ids, py::handle offset,
                    py::handle cu_seqlens, py::handle order, bool in_place) {
    const python_arguments given{.q = q_object,
                                 .k = k_object,
                                 .encoding = encoding,
                                 .ids = ids,
                                 .offset = offset,
                                 .cu_seqlens = cu_seqlens,
                                 .order = order,
                                 .inverse = false,
                                 .adjoint = false,
                                 .table = py::none(),
                                 .threads = py::none()};
    if (is_for_package(given, false)) return;
    const call_integers numbers(given);
    const auto side = [&](const py::object& object, const py::object& out_object, const char* name) {
        output in, out;
        if (object.is_none()) return std::pair{in, out};
        in.memory = read_array(object, name), in.view = as_tensor(in.memory, name, order);
        out = output(in_place ? object : out_object, name, in_place ? "rotate_" : "rotate", order);
        return std::pair{in, out};
    };
    const auto [q, q_out] = side(q_object, q_out_object, "q");
    const auto [k, k_out] = side(k_object, k_out_object, "k");
    check_tokens(q.view, k.view);
    const array& like = on_one_device(q.memory, k.memory);
    const rotation rotation(like, q.memory.source ? q.view : k.view, numbers, given);
    rotation.check(q.view, k.view, q_out.view, k_out.view);
}

/// Throws what two calls, for q and for k with positions of its own, would throw, and for q and k that do not fit
/// together. Without outputs nothing that exists is written. Calls that PyTorch must see are checked as they run.
void check_apart(const py::object& q_object, const py::object& k_object, const py::object& q_out_object,
                 const py::object& k_out_object, py::handle encoding, py::handle ids, py::handle offset,
                 py::handle k_ids, py::handle k_offset, py::handle order, py::handle table) {
    const auto observed = [](py::handle x) {
        return is_torch_tensor(x) && (torch_observes() || (needs_operator(x) && !wants_gradient(x)));
    };
    if (observed(q_object) || observed(k_object)) return;
    const array q = read_array(q_object, "q"), k = read_array(k_object, "k");
    check_order_named(q, k, order);
    const tensor q_view = as_tensor(q, "q", order), k_view = as_tensor(k, "k", order);
    const bool writes = !q_out_object.is_none();
    const bool in_place = q_out_object.is(q_object) && k_out_object.is(k_object);
    const char* const function = in_place ? "rotate_" : "rotate";
    const output q_out(q_out_object, in_place ? "q" : "out of q", function, order),
        k_out(k_out_object, in_place ? "k" : "out of k", function, order);
    on_one_device(q, k);
    RW_EXPECTS(q_view.type == k_view.type, "q is {} but k is {}", to_string(q_view.type), to_string(k_view.type));
    RW_EXPECTS(q_view.batch == k_view.batch, "q and k must have the same batch, got {} and {}", q_view.batch,
               k_view.batch);
    RW_EXPECTS(k_view.heads > 0 ? q_view.heads % k_view.heads == 0 : q_view.heads == 0,
               "the heads of q must be a multiple of those of k, got {} and {}", q_view.heads, k_view.heads);
    for (const auto& [out, in] : {std::pair{&q_out.view, &k_view}, {&k_out.view, &q_view}, {&q_out.view, &k_out.view}})
        RW_EXPECTS(!writes || !detail::may_overlap(*out, *in), "q and k overlap: {} at {}, {} at {}",
                   detail::shape_of("q", q_view), q_view.data, detail::shape_of("k", k_view), k_view.data);
    const auto check = [&](const array& x, tensor view, const tensor& out, bool is_query, py::handle positions,
                           py::handle first) {
        if (!writes) {  // the result is a new array, so that the strides of an expanded input are allowed
            view.stride_head = view.head_dim;
            view.stride_token = view.heads * view.stride_head;
            view.stride_batch = view.tokens * view.stride_token;
        }
        const python_arguments given{.q = {},
                                     .k = {},
                                     .encoding = encoding,
                                     .ids = positions,
                                     .offset = first,
                                     .cu_seqlens = py::none(),
                                     .order = order,
                                     .inverse = false,
                                     .adjoint = false,
                                     .table = table,
                                     .threads = py::none(),
                                     .ids_name = is_query ? "positions" : "k_positions",
                                     .offset_name = is_query ? "offset" : "k_offset"};
        const rotation rotation(x, view, call_integers(given), given);
        const tensor& to = out.exists() ? out : view;
        is_query ? rotation.check(view, {}, to, {}) : rotation.check({}, view, {}, to);
    };
    check(q, q_view, q_out.view, true, ids, offset);
    check(k, k_view, k_out.view, false, k_ids, k_offset);
}

/// A new array like `a`, in the same library if that lets its arrays be written, else in NumPy.
py::object allocate_like(const array& a) {
    if (a.origin == array::library::torch) return call_with(loaded_torch()->empty_like, a.source);
    if (!a.on_host()) {
        const auto module = py::type::of(a.source).attr("__module__").cast<std::string>();
        const py::module_ library = py::module_::import(module.substr(0, module.find('.')).c_str());
        RW_EXPECTS(py::hasattr(library, "empty_like"), "'{}' has no empty_like() for arrays on {}; pass out=", module,
                   device_name(a));
        return library.attr("empty_like")(a.source);
    }
    py::tuple shape(static_cast<std::size_t>(a.axes));
    for (std::size_t axis = 0; axis < shape.size(); ++axis) shape[axis] = py::int_(a.shape[axis]);
    py::object type = py::str(a.type == number::f64 ? "float64" : a.type == number::f32 ? "float32" : "float16");
    if (a.origin == array::library::numpy && py::hasattr(a.source, "dtype")) {
        type = a.source.attr("dtype");
    } else if (a.type == number::bf16) {
        type = py::module_::import("ml_dtypes").attr("bfloat16");
    }
    return py::module_::import("numpy").attr("empty")(shape, type);
}

/// An array that is read, the array for its result, and the object that the caller gets.
struct input {
    array memory;
    tensor view;
    output to;
    py::object result = py::none();
    bool fresh = false;  ///< the result is newly allocated, and some of its pages have not been touched

    input(const py::object& object, const py::object& out, const char* name, const char* out_name, py::handle order) {
        RW_EXPECTS(!object.is_none() || out.is_none(), "{} is given but {} is None", out_name, name);
        if (object.is_none()) return;
        memory = read_array(object, name);
        view = as_tensor(memory, name, order);
        const bool allocates = out.is_none();
        result = allocates ? allocate_like(memory) : out;
        if (allocates && memory.origin == array::library::torch && memory.is_contiguous()) {
            // The new tensor differs from the input in its address only.
            to.memory = memory, to.memory.source = result, to.memory.data = torch_data(result);
            to.view = view, to.view.data = view.elements() == 0 ? view.data : to.memory.data;
        } else {
            to = output(result, out_name, "rotate", order);
            check_device(to.memory, out_name, memory);
            check_gradient(to.memory, out_name, "rotate");
        }
        if (allocates && memory.on_host()) prepare_pages(static_cast<std::size_t>(bytes_of(to.view)));
    }

    void prepare_pages(std::size_t bytes) {
        fresh = bytes >= dispatch::huge_page_bytes && !dispatch::has_pages(to.memory.data, bytes);
        if (fresh) dispatch::prefer_huge_pages(to.memory.data, bytes);
    }

    /// Libraries such as JAX get an array of their own kind, made from NumPy's.
    [[nodiscard]] py::object finish(const py::object& out) const {
        const bool foreign = view.exists() && memory.on_host() && memory.origin == array::library::other;
        if (!foreign || !out.is_none() || !py::hasattr(memory.source, "__array_namespace__")) return result;
        return memory.source.attr("__array_namespace__")().attr("asarray")(result);
    }
};

/// Splits out=(q, k), or one array if one of q and k is None.
std::pair<py::object, py::object> split_outputs(const py::object& out, py::handle q, py::handle k) {
    if (out.is_none()) return {py::none(), py::none()};
    const bool single = q.is_none() || k.is_none();
    py::object only = out;
    if (PyTuple_Check(out.ptr()) || PyList_Check(out.ptr())) {
        const auto parts = py::reinterpret_borrow<py::sequence>(out);
        if (parts.size() == 2) return {parts[0], parts[1]};
        RW_EXPECTS(single && parts.size() == 1, "out must hold {} arrays, got {}", single ? 1 : 2, parts.size());
        only = parts[0];
    }
    RW_EXPECTS(single, "out must be a pair for q and k, got {}", Py_TYPE(out.ptr())->tp_name);
    if (q.is_none()) return {py::none(), only};
    return {only, py::none()};
}

py::object rotate(const python_arguments& given, const py::object& out, bool inside_operator) {
    if (is_for_package(given, inside_operator)) return not_implemented();
    const call_integers numbers(given);
    const auto [q_out, k_out] = split_outputs(out, given.q, given.k);
    const input q(given.q, q_out, "q", "out of q", given.order), k(given.k, k_out, "k", "out of k", given.order);
    const bool warned = check_order(q.memory, k.memory, given.order, !inside_operator);
    check_tokens(q.view, k.view);
    const array& like = on_one_device(q.memory, k.memory);
    rotation rotation(like, q.memory.source ? q.view : k.view, numbers, given);
    if (warned || rotation.ran_python || !is_passive(given.q) || !is_passive(given.k) || !is_passive(q_out) ||
        !is_passive(k_out))
        check_unmoved({{&q.memory, "q"}, {&k.memory, "k"}, {&q.to.memory, "out of q"}, {&k.to.memory, "out of k"}});
    rotation.options.fresh_output = q.fresh || k.fresh;
    rotation.run(q.view, k.view, q.to.view, k.to.view);
    if (!out.is_none()) count_write(q_out, k_out);
    return results(q.finish(q_out), k.finish(k_out));
}

py::object rerotate(const py::object& k, py::handle old_encoding, py::handle new_encoding, py::handle ids,
                    py::handle offset, py::handle new_ids, py::handle new_offset, py::handle order,
                    py::handle threads) {
    const bool stays = new_ids.is_none() && new_offset.is_none();
    // `__index__` may move an array, so that integers are read before addresses.
    const token_offset first = as_token_offset(offset);
    const token_offset new_first = !new_offset.is_none() ? as_token_offset(new_offset, "new_offset")
                                   : stays               ? first
                                                         : token_offset{};
    const int count = thread_count(threads);
    const Encoding& source = as_encoding(old_encoding, "old_encoding");
    const Encoding& target = as_encoding(new_encoding, "new_encoding");
    RW_EXPECTS(!k.is_none(), "k is None");
    RW_EXPECTS(!is_torch_tensor(k) || !torch_observes(),
               "rerotate_ cannot be traced; call it outside of modes, traces and torch.func");
    const output keys(k, "k", "rerotate_", order);
    RW_EXPECTS(keys.view.exists(), "{} has no memory, and rerotate_ cannot be traced", describe(keys.memory, "k"));
    check_gradient(keys.memory, "k", "rerotate_");
    const bool warned = check_order({}, keys.memory, order, true);
    const token_positions source_positions(source, ids, first, py::none(), keys.memory, &keys.view, order);
    const token_positions target_positions(target, stays ? ids : new_ids, new_first, py::none(), keys.memory,
                                           &keys.view, order, stays ? "positions" : "new_positions");
    if (warned || !is_passive(k) || !is_passive(ids) || !is_passive(new_ids))
        check_unmoved({{&keys.memory, "k"},
                       {&source_positions.source, "positions"},
                       {&target_positions.source, "new_positions"}});
    const layout_kind layout = *target.geometry.layout;
    RW_EXPECTS(source.geometry.layout == layout, "old_encoding is for {}, but new_encoding is for {}",
               to_string(*source.geometry.layout), to_string(layout));
    if (!keys.memory.on_host()) {
        run_on_device(keys.memory, {.layout = layout,
                                    .k_in = keys.view,
                                    .k_out = keys.view,
                                    .target = &target,
                                    .target_positions = target_positions.value,
                                    .source = &source,
                                    .source_positions = source_positions.value});
    } else {
        const py::gil_scoped_release released;
        dispatch::rerotate(layout, keys.view, keys.view, source, source_positions.value, target, target_positions.value,
                           count);
    }
    count_write(k, py::none());
    return k;
}

/// Binds a function of python_arguments and of `Last`. The package gives it names, defaults and documentation.
template <class... Last>
void bind(py::module_& m, const char* name, py::object (*function)(const python_arguments&, Last...)) {
    m.def(name, [function](py::object q, py::object k, py::handle encoding, py::handle ids, py::handle offset,
                           py::handle cu_seqlens, py::handle order, py::handle inverse, py::handle adjoint,
                           py::handle table, py::handle threads, std::remove_cvref_t<Last>... last) {
        return function({.q = std::move(q),
                         .k = std::move(k),
                         .encoding = encoding,
                         .ids = ids,
                         .offset = offset,
                         .cu_seqlens = cu_seqlens,
                         .order = order,
                         .inverse = as_bool(inverse, "inverse"),
                         .adjoint = as_bool(adjoint, "adjoint"),
                         .table = table,
                         .threads = threads},
                        last...);
    });
}

}  // namespace

void bind_rotate(py::module_& m) {
    bind(m, "rotate_", &rotate_in_place);
    bind(m, "rotate", &rotate);
    m.def("rerotate_", &rerotate);
    m.def("check_plain", &check_plain);
    m.def("check_pair", &check_pair);
    m.def("check_rotation", &check_rotation);
    m.def("check_apart", &check_apart);
    m.def("as_offset", [](py::handle offset) { return as_offset(offset); });
    m.def("as_int", [](py::handle number, const std::string& name) { return as_int64(number, name.c_str()); });
    m.def("as_bool", [](py::handle truth, const std::string& name) { return as_bool(truth, name.c_str()); });
    m.def("repr_of", &repr_of);
}

}  // namespace ropewalk::python
