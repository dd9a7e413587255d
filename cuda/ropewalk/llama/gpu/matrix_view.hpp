// Matrices in device memory, and products of them.
#pragma once

#include <algorithm>
#include <concepts>

#include "ropewalk/core/error.hpp"
#include "ropewalk/core/overlap.hpp"
#include "ropewalk/llama/gpu/lanes.hpp"

namespace ropewalk::llama::gpu {

/// Non-owning [rows, columns] in row-major order. The stride between rows is in elements.
struct matrix_view {
    void* data = nullptr;
    element_type type = element_type::f32;
    std::int64_t rows = 0, columns = 0, stride = 0;

    [[nodiscard]] constexpr bool exists() const { return data != nullptr; }
};

/// Contiguous [rows, columns]. The calls document which matrices they only read.
template <class T>
    requires Element<std::remove_const_t<T>>
constexpr matrix_view rows_of(T* data, std::int64_t rows, std::int64_t columns) {
    using element = std::remove_const_t<T>;
    return {const_cast<element*>(data), type_of<element>, rows, columns, columns};
}

/// Columns [first, first + count) of all rows.
constexpr matrix_view columns_of(matrix_view m, std::int64_t first, std::int64_t count) {
    m.data = static_cast<char*>(m.data) + first * static_cast<std::int64_t>(size_of(m.type));
    m.columns = count;
    return m;
}
/// Rows [first, first + count).
constexpr matrix_view rows_of(matrix_view m, std::int64_t first, std::int64_t count) {
    m.data = static_cast<char*>(m.data) + first * m.stride * static_cast<std::int64_t>(size_of(m.type));
    m.rows = count;
    return m;
}

/// Loads the elements of a lane from a row, from `column` on; zeros beyond the end of the row.
template <bool Wide, class Memory>
RW_HD RW_INLINE void load_row(const matrix_view& m, std::int64_t row, std::int64_t column, lane_values& x) {
    load_lane<Wide, Memory>(m.type, m.data, row * m.stride + column, m.columns - column, x);
}
template <bool Wide, class Memory>
RW_HD RW_INLINE void store_row(const matrix_view& m, std::int64_t row, std::int64_t column, const lane_values& x) {
    store_lane<Wide, Memory>(m.type, m.data, row * m.stride + column, m.columns - column, x);
}

namespace detail {

/// Returns whether 16-byte accesses reach the elements of every lane in every row.
template <std::same_as<matrix_view>... M>
bool allows_wide(const M&... matrices) {
    return (... &&
            (reinterpret_cast<std::uintptr_t>(matrices.data) % 16 == 0 && matrices.columns % lane_elements == 0 &&
             (matrices.rows <= 1 || matrices.stride * static_cast<std::int64_t>(size_of(matrices.type)) % 16 == 0)));
}

inline std::string shape_of(std::string_view name, const matrix_view& m) {
    return ropewalk::detail::format("{} {} [{}, {}] of stride {}", name, to_string(m.type), m.rows, m.columns,
                                    m.stride);
}

inline void check_matrix(std::string_view name, const matrix_view& m) {
    RW_EXPECTS(m.rows >= 0 && m.columns >= 0 && (m.rows <= 1 || m.stride >= m.columns),
               "{}: extents must not be negative and the stride must not be shorter than a row", shape_of(name, m));
    RW_EXPECTS(m.exists() || m.rows * m.columns == 0, "{} has no memory", shape_of(name, m));
    RW_EXPECTS(reinterpret_cast<std::uintptr_t>(m.data) % size_of(m.type) == 0,
               "{}: address {} is not aligned to the {} bytes of an element", shape_of(name, m), m.data,
               size_of(m.type));
}

inline void check_same_shape(std::string_view name, const matrix_view& m, std::string_view other_name,
                             const matrix_view& other) {
    RW_EXPECTS(m.rows == other.rows && m.columns == other.columns, "{} must have the shape of {}", shape_of(name, m),
               shape_of(other_name, other));
}

/// Checks that an output is its input or does not overlap it.
inline void check_no_overlap(std::string_view name, const matrix_view& in, const matrix_view& out) {
    const auto range = [](const matrix_view& m) {
        const auto first = reinterpret_cast<std::uintptr_t>(m.data);
        const std::int64_t elements = m.rows == 0 ? 0 : (m.rows - 1) * m.stride + m.columns;
        return ropewalk::detail::byte_range{first, first + static_cast<std::uintptr_t>(elements) * size_of(m.type)};
    };
    const bool same = in.data == out.data && in.type == out.type && (in.rows <= 1 || in.stride == out.stride);
    RW_EXPECTS(same || !range(in).overlaps(range(out)), "the output overlaps {} at {} but is not the same matrix",
               shape_of(name, in), in.data);
}

}  // namespace detail

/// One operand of a batch of products: row-major matrices with `stride` elements from row to row and `batch` elements
/// from matrix to matrix.
struct operand {
    void* data = nullptr;
    element_type type = element_type::f32;
    std::int64_t stride = 0, batch = 0;
};

/// c = a · b + beta · c for every matrix of a batch: a [m, k], c [m, n], and b [k, n], or [n, k] if transposed. Sums
/// are float32. a and b have the same type; c has that type or f32. If beta is 0, c is not read.
struct product {
    operand a, b, c;
    std::int64_t m = 0, n = 0, k = 0, batch = 1;
    bool transposed = true;
    float beta = 0;
};

/// A linear layer: y [tokens, outputs] = x [tokens, inputs] · wᵀ, or y += x · wᵀ, with weights w [outputs, inputs].
inline product make_linear(const matrix_view& x, const matrix_view& w, const matrix_view& y, bool add = false) {
    detail::check_matrix("x", x), detail::check_matrix("w", w), detail::check_matrix("y", y);
    RW_EXPECTS(x.columns == w.columns && y.columns == w.rows && x.rows == y.rows, "{} times {} does not give {}",
               detail::shape_of("x", x), detail::shape_of("w", w), detail::shape_of("y", y));
    RW_EXPECTS(x.type == w.type && (y.type == w.type || y.type == element_type::f32),
               "x and w must have the same type, and y that type or f32, got {}, {} and {}", to_string(x.type),
               to_string(w.type), to_string(y.type));
    // A single row may have any stride, but cuBLAS requires a stride that holds the row.
    const auto rows = [](const matrix_view& m) { return operand{m.data, m.type, std::max(m.stride, m.columns), 0}; };
    return {
        .a = rows(x), .b = rows(w), .c = rows(y), .m = x.rows, .n = w.rows, .k = x.columns, .beta = add ? 1.0F : 0.0F};
}

}  // namespace ropewalk::llama::gpu
