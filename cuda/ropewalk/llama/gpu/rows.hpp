// Rows of numbers in device memory, and the jobs whose kernels go through them.
#pragma once

#include "ropewalk/core/error.hpp"
#include "ropewalk/gpu/plan.hpp"
#include "ropewalk/llama/gpu/elements.hpp"

namespace ropewalk::llama::gpu {

/// [rows, columns] of an element type, row by row with a stride in elements. Device memory of somebody else.
struct matrix_view {
    void* data = nullptr;
    element_type type = element_type::f32;
    std::int64_t rows = 0, columns = 0, stride = 0;

    [[nodiscard]] constexpr bool exists() const { return data != nullptr; }
};

/// Contiguous [rows, columns]. What is const is only read: it is for the calls to say.
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

namespace detail {

/// Whether 16-byte accesses reach a lane's elements in every row.
inline bool takes_wide(const matrix_view& m) {
    const auto size = static_cast<std::int64_t>(size_of(m.type));
    return reinterpret_cast<std::uintptr_t>(m.data) % 16 == 0 && m.columns % lane_elements == 0 &&
           (m.rows <= 1 || m.stride * size % 16 == 0);
}

inline std::string shape_of(std::string_view name, const matrix_view& m) {
    return ropewalk::detail::format("{} {} [{}, {}] of stride {}", name, to_string(m.type), m.rows, m.columns,
                                    m.stride);
}

inline void check_rows(std::string_view name, const matrix_view& m) {
    RW_EXPECTS(m.rows >= 0 && m.columns >= 0 && (m.rows <= 1 || m.stride >= m.columns),
               "{}: no extent may be negative, nor a stride shorter than a row", shape_of(name, m));
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

/// An output is its input or lies apart from it.
inline void check_apart(std::string_view name, const matrix_view& in, const matrix_view& out) {
    const auto range = [](const matrix_view& m) {
        const auto first = reinterpret_cast<std::uintptr_t>(m.data);
        const std::int64_t elements = m.rows == 0 ? 0 : (m.rows - 1) * m.stride + m.columns;
        return std::pair(first, first + static_cast<std::uintptr_t>(elements) * size_of(m.type));
    };
    const auto [a, a_end] = range(in);
    const auto [b, b_end] = range(out);
    const bool same = in.data == out.data && in.type == out.type && (in.rows <= 1 || in.stride == out.stride);
    RW_EXPECTS(same || a_end <= b || b_end <= a, "the output overlaps {} at {} but is not the same", shape_of(name, in),
               in.data);
}

}  // namespace detail

/// A kernel's body says of how many blocks of 128 threads a multiprocessor's registers shall hold; told nothing, the
/// compiler spills a few to hold one more.
inline constexpr int usual_blocks = 8;

/// How many threads a job has: whole warps, each of which does one of `items`, or threads of which each does one.
struct job_threads {
    std::int64_t threads = 0;  ///< 0: nothing to do
};

constexpr std::int64_t threads_of_warps(std::int64_t items) { return items * warp_lanes; }
constexpr std::int64_t threads_of_items(std::int64_t items) {
    return ropewalk::gpu::detail::divide_up(items, warp_lanes) * warp_lanes;
}

/// Calls f(std::bool_constant<Wide>).
template <class F>
void with_width(bool wide, const F& f) {
    if (wide) return f(std::true_type{});
    f(std::false_type{});
}

}  // namespace ropewalk::llama::gpu
