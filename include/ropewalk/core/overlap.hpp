// Overlap of strided tensors in memory.
#pragma once

#include <array>
#include <cstdint>
#include <utility>

#include "ropewalk/core/compiler.hpp"
#include "ropewalk/core/view.hpp"

namespace ropewalk::detail {
inline namespace RW_ISA {

struct axis {
    const char* name;
    std::int64_t extent;
    std::int64_t stride;  ///< elements, not negative
};

/// The half-open range of bytes that strided elements span. Empty ranges never overlap.
struct byte_range {
    std::uintptr_t begin = 0;
    std::uintptr_t end = 0;
    [[nodiscard]] bool overlaps(const byte_range& other) const { return begin < other.end && other.begin < end; }
};

/// Returns the range of elements of `size` bytes at `data`, with the shape and strides of a tensor.
inline byte_range range_of(const tensor& axes, const void* data, std::uintptr_t size) {
    if (axes.elements() == 0) return {};
    // Unsigned: strides that no address space holds wrap. check_tensor() refuses them.
    std::uintptr_t below = 0, above = static_cast<std::uintptr_t>(axes.head_dim);
    const auto reach = [&](std::int64_t extent, std::int64_t stride) {
        (stride < 0 ? below : above) += static_cast<std::uintptr_t>(extent - 1) * static_cast<std::uintptr_t>(stride);
    };
    reach(axes.heads, axes.stride_head);
    reach(axes.tokens, axes.stride_token);
    reach(axes.batch, axes.stride_batch);
    const auto start = reinterpret_cast<std::uintptr_t>(data);
    return {start + below * size, start + above * size};
}

inline byte_range range_of(const tensor& t) { return range_of(t, t.data, size_of(t.type)); }

/// Returns the three outer axes with the absolute values of their strides.
inline std::array<axis, 3> outer_axes(const tensor& t) {
    std::array<axis, 3> axes{axis{"head", t.heads, t.stride_head}, axis{"token", t.tokens, t.stride_token},
                             axis{"batch", t.batch, t.stride_batch}};
    for (axis& outer : axes) outer.stride = length_of(outer.stride);
    return axes;
}

/// Returns the name of an axis along which elements of t share memory with each other (with a stride of 0, for
/// example), or null.
inline const char* overlapping_axis(const tensor& t) {
    std::array<axis, 3> axes = outer_axes(t);
    std::int64_t span = t.head_dim;  // saturates at 2^63 − 1
    for (std::size_t i = 0; i < axes.size(); ++i) {
        for (std::size_t j = i + 1; j < axes.size(); ++j) {
            if (axes[j].stride < axes[i].stride) std::swap(axes[i], axes[j]);
        }
        if (axes[i].extent <= 1) continue;
        if (axes[i].stride < span) return axes[i].name;
        span = reach_of(span, {{axes[i].extent, axes[i].stride}});
    }
    return nullptr;
}

/// Returns the number of elements spanned by the axes whose stride is no multiple of `modulus`.
inline std::int64_t span_of(const std::array<axis, 3>& axes, std::int64_t head_dim, std::int64_t modulus) {
    std::int64_t span = head_dim;
    for (const axis& outer : axes) {
        if (outer.stride % modulus != 0) span = reach_of(span, {{outer.extent, outer.stride}});
    }
    return span;
}

/// Returns whether elements of `size` bytes with the axes of a and b may share memory. Exact for disjoint ranges and
/// for slices of one packed tensor (q and k of a qkv projection); otherwise conservative, that is, true.
inline bool may_overlap(const tensor& a, const byte_range& a_bytes, const tensor& b, const byte_range& b_bytes,
                        std::uintptr_t size) {
    if (!a_bytes.overlaps(b_bytes)) return false;
    if (a_bytes.begin % size != b_bytes.begin % size) return true;

    // Modulo the stride of the packed tensor, its slices are disjoint intervals.
    const auto a_axes = outer_axes(a), b_axes = outer_axes(b);
    const auto apart = static_cast<std::int64_t>(b_bytes.begin - a_bytes.begin) / static_cast<std::int64_t>(size);
    for (const axis& outer : a_axes) {
        const std::int64_t modulus = outer.stride;
        if (modulus == 0 || outer.extent <= 1) continue;
        const std::int64_t a_span = span_of(a_axes, a.head_dim, modulus), b_span = span_of(b_axes, b.head_dim, modulus);
        const std::int64_t rest = apart % modulus, shift = rest < 0 ? rest + modulus : rest;
        if (shift >= a_span && b_span <= modulus - shift) return false;
    }
    return true;
}

/// Returns whether two tensors may share memory.
inline bool may_overlap(const tensor& a, const tensor& b) {
    if (!a.exists() || !b.exists()) return false;
    const byte_range a_bytes = range_of(a), b_bytes = range_of(b);
    if (a.type != b.type) return a_bytes.overlaps(b_bytes);
    return may_overlap(a, a_bytes, b, b_bytes, size_of(a.type));
}

}  // namespace RW_ISA
}  // namespace ropewalk::detail
