// rotate_, rotate and rerotate_: read the arguments, let go of the interpreter, run.

#include <optional>

#include "arguments.hpp"
#include "bindings.hpp"
#include "cuda.hpp"
#include "dispatch/dispatch.hpp"
#include "dispatch/huge_pages.hpp"
#include "positional.hpp"

namespace ropewalk::python {

namespace {

std::int64_t bytes_of(const tensor& t) { return t.elements() * static_cast<std::int64_t>(size_of(t.type)); }

/// What Python passes to rotate_() and to rotate(), in this order.
struct given_arguments {
    py::object q, k;
    py::handle encoding, ids;
    std::int64_t offset;
    py::handle cu_seqlens, order;
    bool inverse, adjoint;
    py::handle table, threads;

    static constexpr int count = 11;
    explicit given_arguments(positional from)
        : q(py::reinterpret_borrow<py::object>(from[0])),
          k(py::reinterpret_borrow<py::object>(from[1])),
          encoding(from[2]),
          ids(from[3]),
          offset(as_int64(from[4], "offset")),
          cu_seqlens(from[5]),
          order(from[6]),
          inverse(as_bool(from[7], "inverse")),
          adjoint(as_bool(from[8], "adjoint")),
          table(from[9]),
          threads(from[10]) {}
};

/// A call that takes less time than another thread would keep the interpreter.
constexpr std::int64_t quick_bytes = 64 * 1024;

/// What rotate_() and rotate() have in common beside their tensors.
struct turn_arguments {
    const array& like;  ///< q or k: where the call runs
    const Encoding& encoding;
    token_positions where;
    kept_table table;
    cpu::options options;

    turn_arguments(const array& like_, const given_arguments& given)
        : like(like_),
          encoding(as_encoding(given.encoding)),
          where(encoding, given.ids, given.offset, given.cu_seqlens, like),
          table(as_table(given.table, like)) {
        if (given.inverse)
            options.direction = given.adjoint ? cpu::direction::inverse_adjoint : cpu::direction::inverse;
        if (given.adjoint && !given.inverse) options.direction = cpu::direction::adjoint;
        options.table = table.rows;
        if (like.on_host() || !given.threads.is_none()) options.threads = as_threads(given.threads);
    }

    void run(const tensor& q, const tensor& k, const tensor& q_out, const tensor& k_out) const {
        where.check_tokens(q.exists() ? q.tokens : k.tokens);
        if (!like.on_host()) {
            return device_call(like).rotate(q, k, q_out, k_out, encoding, where, options.direction, options.table);
        }
        std::optional<py::gil_scoped_release> released;
        if (bytes_of(q) + bytes_of(k) > quick_bytes) released.emplace();
        dispatch::rotate(*encoding.geometry.layout, q, k, q_out, k_out, encoding, where.where, options);
    }
};

/// The package takes this for "through the operator, please".
py::object not_implemented() { return py::reinterpret_borrow<py::object>(Py_NotImplemented); }

/// Throws unless there is something to turn. Whether torch has to be asked first, by way of its operators.
bool leaves_to_torch(const given_arguments& given, py::handle inside_operator) {
    RW_EXPECTS(!given.q.is_none() || !given.k.is_none(), "q and k are both None");
    if (inside_operator.ptr() == Py_True) return false;
    const bool torch = is_torch_tensor(given.q) || is_torch_tensor(given.k);
    return torch && (torch_listens() || needs_operator(given.q) || needs_operator(given.k));
}

/// q, k or (q, k): what there is.
py::object results(const py::object& q, const py::object& k) {
    if (k.is_none()) return q;
    if (q.is_none()) return k;
    return py::make_tuple(q, k);
}

/// An array that is written in place, and its view; the view of None is absent.
struct written {
    array memory;
    tensor view;

    written() = default;
    written(py::handle object, const char* name, const char* function, py::handle order) {
        if (object.is_none()) return;
        memory = read_array(object, name);
        view = as_tensor(memory, name, order);
        check_writable(memory, name, function);
    }
};

/// That of q and k which is there; throws where they lie on different devices.
const array& common_place(const array& q, const array& k) {
    if (!q.source) return k;
    if (k.source) check_place(k, "k", q);
    return q;
}

/// (…, inside_operator)
py::object rotate_in_place(positional from) {
    const given_arguments given(from);
    const py::handle inside_operator = from[given.count];
    if (leaves_to_torch(given, inside_operator)) return not_implemented();
    const written a(given.q, "q", "rotate_", given.order), b(given.k, "k", "rotate_", given.order);
    const turn_arguments turn(common_place(a.memory, b.memory), given);
    turn.run(a.view, b.view, a.view, b.view);
    announce_write(given.q, given.k);
    return results(given.q, given.k);
}

/// Throws what rotate_() would say of q and k together, where autograd has them turned one after the other.
void check_both(const py::object& q, const py::object& k, py::handle encoding, py::handle order) {
    const written a(q, "q", "rotate_", order), b(k, "k", "rotate_", order);
    common_place(a.memory, b.memory);
    detail::check_tensors({.q_in = a.view, .k_in = b.view, .q_out = a.view, .k_out = b.view},
                          as_encoding(encoding).geometry.head_dim);
}

/// A new array like `a` of a library that has its own on devices.
py::object allocate_on_device(const array& a) {
    const auto module = py::type::of(a.source).attr("__module__").cast<std::string>();
    const py::module_ library = py::module_::import(module.substr(0, module.find('.')).c_str());
    RW_EXPECTS(py::hasattr(library, "empty_like"),
               "'{}' makes no arrays on {}: give the results their place by out=", module, place_of(a));
    return library.attr("empty_like")(a.source);
}

/// A new array like `a`, in the same library where that lets its arrays be written, else in NumPy.
py::object allocate_like(const array& a) {
    if (a.origin == array::library::torch) return call_with(loaded_torch()->empty_like, a.source);
    if (!a.on_host()) return allocate_on_device(a);
    py::tuple shape(static_cast<std::size_t>(a.axes));
    for (int i = 0; i < a.axes; ++i)
        shape[static_cast<std::size_t>(i)] = py::int_(a.shape[static_cast<std::size_t>(i)]);
    py::object type = py::str(a.type == number::f32 ? "float32" : "float16");
    if (a.origin == array::library::numpy) {
        type = a.source.attr("dtype");
    } else if (a.type == number::bf16) {
        type = py::module_::import("ml_dtypes").attr("bfloat16");
    }
    return py::module_::import("numpy").attr("empty")(shape, type);
}

/// An array that is read, its new home, and what the caller gets.
struct copied {
    array in;
    tensor from;
    std::optional<written> out;
    py::object result = py::none();
    bool fresh = false;  ///< the result is of our own making, and some of its pages were never written

    copied(const py::object& object, const py::object& given, const char* name, const char* out_name,
           py::handle order) {
        RW_EXPECTS(!object.is_none() || given.is_none(), "{} is given but {} is None", out_name, name);
        if (object.is_none()) return;
        in = read_array(object, name);
        from = as_tensor(in, name, order);
        const bool ours = given.is_none();
        result = ours ? allocate_like(in) : given;
        if (ours && in.origin == array::library::torch && in.is_compact()) {
            // torch has made it like the input: nothing to ask for but where it is.
            out.emplace();
            out->memory = in, out->memory.source = result, out->memory.data = torch_data(result);
            out->view = from, out->view.data = from.elements() == 0 ? from.data : out->memory.data;
        } else {
            out.emplace(result, out_name, "rotate", order);
            check_place(out->memory, out_name, in);
            check_gradient(out->memory, out_name, "rotate");
        }
        if (ours && in.on_host()) prepare_pages(out->memory.data, static_cast<std::size_t>(bytes_of(out->view)));
    }
    void prepare_pages(void* data, std::size_t bytes) {
        fresh = bytes >= dispatch::huge_page_bytes && !dispatch::has_pages(data, bytes);
        if (fresh) dispatch::prefer_huge_pages(data, bytes);
    }
    [[nodiscard]] tensor to() const { return out ? out->view : tensor{}; }

    /// JAX and others get an array of their own kind, made from NumPy's.
    [[nodiscard]] py::object finish(const py::object& given) const {
        const bool foreign = from.exists() && in.on_host() && in.origin == array::library::other && given.is_none();
        if (!foreign || !py::hasattr(in.source, "__array_namespace__")) return result;
        return in.source.attr("__array_namespace__")().attr("asarray")(result);
    }
};

/// out=(q, k), or one array where there is only one.
std::pair<py::object, py::object> split_outputs(const py::object& out, py::handle q, py::handle k) {
    if (out.is_none()) return {py::none(), py::none()};
    if (PyTuple_Check(out.ptr()) || PyList_Check(out.ptr())) {
        const auto parts = py::reinterpret_borrow<py::sequence>(out);
        const std::size_t wanted = q.is_none() || k.is_none() ? 1 : 2;
        RW_EXPECTS(parts.size() == wanted || parts.size() == 2, "out holds {} arrays, expected {}", parts.size(),
                   wanted);
        if (parts.size() == 2) return {parts[0], parts[1]};
        return q.is_none() ? std::pair<py::object, py::object>{py::none(), parts[0]}
                           : std::pair<py::object, py::object>{parts[0], py::none()};
    }
    RW_EXPECTS(q.is_none() || k.is_none(), "out must be a pair for q and k, got {}", Py_TYPE(out.ptr())->tp_name);
    if (q.is_none()) return {py::none(), out};
    return {out, py::none()};
}

/// (…, out, inside_operator)
py::object rotate(positional from) {
    const given_arguments given(from);
    const auto out = py::reinterpret_borrow<py::object>(from[given.count]);
    if (leaves_to_torch(given, from[given.count + 1])) return not_implemented();
    const auto [q_given, k_given] = split_outputs(out, given.q, given.k);
    const copied a(given.q, q_given, "q", "out of q", given.order), b(given.k, k_given, "k", "out of k", given.order);
    turn_arguments turn(common_place(a.in, b.in), given);
    turn.options.fresh_output = a.fresh || b.fresh;
    turn.run(a.from, b.from, a.to(), b.to());
    if (!out.is_none()) announce_write(q_given, k_given);
    return results(a.finish(q_given), b.finish(k_given));
}

py::object rerotate(const py::object& k, py::handle old_encoding, py::handle new_encoding, py::handle ids,
                    py::handle offset, py::handle new_ids, py::handle new_offset, py::handle order,
                    py::handle threads) {
    const std::int64_t first = as_int64(offset, "offset");
    const Encoding& from = as_encoding(old_encoding, "old_encoding");
    const Encoding& to = as_encoding(new_encoding, "new_encoding");
    const bool stays = new_ids.is_none() && new_offset.is_none();
    RW_EXPECTS(!k.is_none(), "k is None");
    RW_EXPECTS(!is_torch_tensor(k) || !torch_listens(),
               "rerotate_ is no operator that torch could record: call it outside of modes, traces and torch.func");
    const written a(k, "k", "rerotate_", order);
    RW_EXPECTS(a.view.exists(), "{} has no memory, and rerotate_ is no operator that torch could record",
               describe(a.memory, "k"));
    check_gradient(a.memory, "k", "rerotate_");
    const token_positions from_where(from, ids, first, py::none(), a.memory);
    const token_positions to_where(to, stays ? ids : new_ids,
                                   new_offset.is_none() ? (stays ? first : 0) : as_int64(new_offset, "new_offset"),
                                   py::none(), a.memory, stays ? "positions" : "new_positions");
    from_where.check_tokens(a.view.tokens);
    to_where.check_tokens(a.view.tokens);
    RW_EXPECTS(from.geometry.layout == to.geometry.layout, "old_encoding is for {}, new_encoding for {}",
               to_string(*from.geometry.layout), to_string(*to.geometry.layout));
    if (!a.memory.on_host()) {
        device_call(a.memory).rerotate(a.view, from, from_where, to, to_where);
    } else {
        const int team = as_threads(threads);
        const py::gil_scoped_release released;
        dispatch::rerotate(*to.geometry.layout, a.view, a.view, from, from_where.where, to, to_where.where, team);
    }
    announce_write(k, py::none());
    return k;
}

}  // namespace

void bind_rotate(py::module_& m) {
    error_class = py::object(m.attr("Error")).release().ptr();
    // The package gives them names, defaults and documentation.
    static std::array<PyMethodDef, 3> methods{
        positional_method<&rotate_in_place, given_arguments::count + 1>("rotate_"),
        positional_method<&rotate, given_arguments::count + 2>("rotate"), PyMethodDef{}};
    if (PyModule_AddFunctions(m.ptr(), methods.data()) != 0) throw py::error_already_set();
    m.def("rerotate_", &rerotate);
    m.def("check_both", &check_both);
}

}  // namespace ropewalk::python
