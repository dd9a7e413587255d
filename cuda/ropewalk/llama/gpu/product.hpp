// Matrix products as somebody else computes them: cuBLAS on a device, three loops in tests.
#pragma once

#include <algorithm>

#include "ropewalk/llama/gpu/rows.hpp"

namespace ropewalk::llama::gpu {

/// One operand of `batch` products: row by row, each `stride` elements behind the one before, the matrices `batch`
/// elements apart.
struct operand {
    void* data = nullptr;
    element_type type = element_type::f32;
    std::int64_t stride = 0, batch = 0;
};

/// c = a · b + beta · c for every matrix of a batch: a [m, k], c [m, n], and b [k, n], or [n, k] where it is
/// transposed. Sums are float32. a and b have one type, c has it too or is f32. Where beta is 0, c is not read.
struct product {
    operand a, b, c;
    std::int64_t m = 0, n = 0, k = 0, batch = 1;
    bool transposed = true;
    float beta = 0;
};

/// y [tokens, outputs] = x [tokens, inputs] · wᵀ, or that added to y: a Linear whose weights w are [outputs, inputs].
inline product make_linear(const matrix_view& x, const matrix_view& w, const matrix_view& y, bool add = false) {
    detail::check_rows("x", x), detail::check_rows("w", w), detail::check_rows("y", y);
    RW_EXPECTS(x.columns == w.columns && y.columns == w.rows && x.rows == y.rows, "{} times {} is no {}",
               detail::shape_of("x", x), detail::shape_of("w", w), detail::shape_of("y", y));
    RW_EXPECTS(x.type == w.type && (y.type == w.type || y.type == element_type::f32),
               "x and w must have one type, and y that or f32, got {}, {} and {}", to_string(x.type), to_string(w.type),
               to_string(y.type));
    // A single row may have any stride, but whoever computes products wants one that holds it.
    const auto rows = [](const matrix_view& m) { return operand{m.data, m.type, std::max(m.stride, m.columns), 0}; };
    return {
        .a = rows(x), .b = rows(w), .c = rows(y), .m = x.rows, .n = w.rows, .k = x.columns, .beta = add ? 1.0F : 0.0F};
}

}  // namespace ropewalk::llama::gpu
