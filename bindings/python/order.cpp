#include "order.hpp"

#include <array>
#include <string_view>

#include <ropewalk/core/error.hpp>
#include "arguments.hpp"

namespace ropewalk::python {

namespace {

/// Falcon-180B has 232 query heads, the most of all published models.
constexpr std::int64_t most_heads = 256;

/// "[2, 32, 128, 64]"
std::string shape_of(const array& a) {
    std::string text = "[";
    for (int axis = 0; axis < a.axes; ++axis)
        text += (axis == 0 ? "" : ", ") + std::to_string(a.shape[static_cast<std::size_t>(axis)]);
    return text + "]";
}

bool has_four_axes(const array& a) { return a.source && a.axes == 4; }

/// True if axis 1 can be the heads and axis 2 cannot.
bool looks_heads_first(const array& a) {
    return has_four_axes(a) && a.shape[2] > most_heads && a.shape[1] <= most_heads && a.shape[1] > 0;
}

/// True if only the order "bhsd" makes one number of tokens, or a multiple of the heads, of axes that differ.
bool fit_heads_first(const array& q, const array& k) {
    const auto divides = [&](std::size_t axis) { return k.shape[axis] > 0 && q.shape[axis] % k.shape[axis] == 0; };
    return q.shape[1] != k.shape[1] && divides(1) && (q.shape[2] == k.shape[2] || !divides(2));
}

[[gnu::cold]] bool warn_once(const array& a, const char* name) {
    static bool done = false;
    if (done) return false;
    done = true;
    const std::string text = detail::format(
        "ropewalk: {} {} is read as [batch, tokens, heads, head_dim], with {} tokens and {} heads; did you mean "
        "order='bhsd'? Pass order='bshd' if not. This warning is not repeated.",
        name, shape_of(a), a.shape[1], a.shape[2]);
    constexpr int caller_of_rotate = 2;
    if (PyErr_WarnEx(PyExc_UserWarning, text.c_str(), caller_of_rotate) != 0) throw py::error_already_set();
    return true;
}

}  // namespace

bool check_order(const array& q, const array& k, py::handle order, bool may_warn) {
    if (!order.is_none()) return false;
    RW_EXPECTS(!has_four_axes(q) || !has_four_axes(k) || !fit_heads_first(q, k),
               "q {} and k {} have {} and {} tokens in the order [batch, tokens, heads, head_dim]; did you mean "
               "order='bhsd'?",
               shape_of(q), shape_of(k), q.shape[1], k.shape[1]);
    if (!may_warn) return false;
    return (looks_heads_first(q) && warn_once(q, "q")) || (looks_heads_first(k) && warn_once(k, "k"));
}

void check_order_named(const array& q, const array& k, py::handle order) {
    if (!order.is_none() || !has_four_axes(q) || !has_four_axes(k)) return;
    RW_EXPECTS(q.shape[1] == k.shape[1] || k.shape[1] == 0 || q.shape[1] % k.shape[1] != 0,
               "q {} and k {} can be [batch, tokens, heads, head_dim] or [batch, heads, tokens, head_dim]; pass "
               "order='bshd' or order='bhsd'",
               shape_of(q), shape_of(k));
}

std::string order_hint(const array& a, py::handle order, std::int64_t count) {
    struct token_axis {
        std::string_view order;
        std::size_t axis;
    };
    if (a.axes == 3 && a.shape[1] == count) return "; pass swapaxes(0, 1) of an array [heads, tokens, head_dim]";
    if (a.axes == 4) {
        const std::string given = order.is_none() ? "bshd" : std::string(as_text(order, "order"));
        for (const token_axis& other : {token_axis{"bhsd", 2}, {"bshd", 1}, {"sbhd", 0}})
            if (other.order != given && a.shape[other.axis] == count)
                return detail::format("; did you mean order='{}'?", other.order);
    }
    return "; set order= to name the token axis";
}

}  // namespace ropewalk::python
