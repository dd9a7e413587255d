// Do two strided tensors share memory?
#pragma once

#include <array>
#include <cstdint>
#include <utility>

#include "ropewalk/core/view.hpp"

namespace ropewalk::detail {

struct axis {
    const char* name;
    std::int64_t extent;
    std::int64_t stride;  ///< elements, positive
};

/// From the first byte of strided elements to the one behind the last. What has no elements meets nothing.
struct byte_range {
    std::uintptr_t begin = 0;
    std::uintptr_t end = 0;
    [[nodiscard]] bool meets(const byte_range& other) const { return begin < other.end && other.begin < end; }
};

/// Of elements of `size` bytes at `data`, along the axes of a tensor.
inline byte_range range_of(const tensor& axes, const void* data, std::uintptr_t size) {
    if (axes.elements() == 0) return {};
    std::int64_t below = 0, above = axes.head_dim;
    const auto reach = [&](std::int64_t extent, std::int64_t stride) {
        (stride < 0 ? below : above) += (extent - 1) * stride;
    };
    reach(axes.heads, axes.stride_head);
    reach(axes.tokens, axes.stride_token);
    reach(axes.batch, axes.stride_batch);
    const auto start = reinterpret_cast<std::uintptr_t>(data);
    return {start + static_cast<std::uintptr_t>(below) * size, start + static_cast<std::uintptr_t>(above) * size};
}

inline byte_range range_of(const tensor& t) { return range_of(t, t.data, size_of(t.type)); }

/// The three outer axes with positive strides.
inline std::array<axis, 3> outer_axes(const tensor& t) {
    std::array<axis, 3> axes{axis{"head", t.heads, t.stride_head}, axis{"token", t.tokens, t.stride_token},
                             axis{"batch", t.batch, t.stride_batch}};
    for (axis& one : axes) one.stride = one.stride < 0 ? -one.stride : one.stride;
    return axes;
}

/// The name of an axis along which elements of t share memory with each other (a stride of 0, say), or null.
inline const char* overlapping_axis(const tensor& t) {
    // The usual order of the axes, without sorting them.
    if (t.stride_head >= t.head_dim && t.stride_token >= t.heads * t.stride_head &&
        (t.batch == 1 || t.stride_batch >= t.tokens * t.stride_token)) {
        return nullptr;
    }
    std::array<axis, 3> axes = outer_axes(t);
    std::int64_t span = t.head_dim;
    for (std::size_t i = 0; i < axes.size(); ++i) {
        for (std::size_t j = i + 1; j < axes.size(); ++j) {
            if (axes[j].stride < axes[i].stride) std::swap(axes[i], axes[j]);
        }
        if (axes[i].extent <= 1) continue;
        if (axes[i].stride < span) return axes[i].name;
        span += (axes[i].extent - 1) * axes[i].stride;
    }
    return nullptr;
}

/// Elements from the first to behind the last along the axes whose strides `modulus` does not divide.
inline std::int64_t span_of(const std::array<axis, 3>& axes, std::int64_t head_dim, std::int64_t modulus) {
    std::int64_t span = head_dim;
    for (const axis& one : axes) {
        if (one.extent > 1 && one.stride % modulus != 0) span += (one.extent - 1) * one.stride;
    }
    return span;
}

/// Whether a and b may share memory. Exact for disjoint extents and for slices of one packed tensor (q and k of a qkv
/// projection); true in doubt.
inline bool may_overlap(const tensor& a, const tensor& b) {
    if (!a.exists() || !b.exists()) return false;
    const byte_range a_bytes = range_of(a), b_bytes = range_of(b);
    if (!a_bytes.meets(b_bytes)) return false;
    const std::uintptr_t size = size_of(a.type);
    if (a.type != b.type || a_bytes.begin % size != b_bytes.begin % size) return true;

    // Modulo a stride that both share, slices of one packed tensor are intervals that do not meet.
    const auto a_axes = outer_axes(a), b_axes = outer_axes(b);
    const auto apart = static_cast<std::int64_t>(b_bytes.begin - a_bytes.begin) / static_cast<std::int64_t>(size);
    for (const axis& one : a_axes) {
        const std::int64_t modulus = one.stride;
        if (modulus == 0 || one.extent <= 1) continue;
        const std::int64_t a_span = span_of(a_axes, a.head_dim, modulus), b_span = span_of(b_axes, b.head_dim, modulus);
        const std::int64_t shift = ((apart % modulus) + modulus) % modulus;
        if (shift >= a_span && shift + b_span <= modulus) return false;
    }
    return true;
}

}  // namespace ropewalk::detail
