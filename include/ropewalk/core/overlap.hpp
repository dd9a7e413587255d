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

/// The three outer axes with positive strides; `lowest` receives the address of the first byte.
inline std::array<axis, 3> outer_axes(const tensor& t, std::uintptr_t& lowest) {
    std::array<axis, 3> axes{axis{"head", t.heads, t.stride_head}, axis{"token", t.tokens, t.stride_token},
                             axis{"batch", t.batch, t.stride_batch}};
    std::int64_t back = 0;
    for (axis& one : axes) {
        if (one.stride < 0) {
            back += (one.extent - 1) * -one.stride;
            one.stride = -one.stride;
        }
    }
    lowest = reinterpret_cast<std::uintptr_t>(t.data) - static_cast<std::uintptr_t>(back) * size_of(t.type);
    return axes;
}

/// The name of an axis along which elements of t share memory with each other (a stride of 0, say), or null.
inline const char* overlapping_axis(const tensor& t) {
    // The usual order of the axes, without sorting them.
    if (t.stride_head >= t.head_dim && t.stride_token >= t.heads * t.stride_head &&
        (t.batch == 1 || t.stride_batch >= t.tokens * t.stride_token)) {
        return nullptr;
    }
    std::uintptr_t lowest = 0;
    std::array<axis, 3> axes = outer_axes(t, lowest);
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

/// Elements from the first to behind the last along the axes whose strides `modulus` does not divide (0: all axes).
inline std::int64_t span_of(const std::array<axis, 3>& axes, std::int64_t head_dim, std::int64_t modulus) {
    std::int64_t span = head_dim;
    for (const axis& one : axes) {
        if (one.extent > 1 && (modulus == 0 || one.stride % modulus != 0)) span += (one.extent - 1) * one.stride;
    }
    return span;
}

/// Whether a and b may share memory. Exact for disjoint extents and for slices of one packed tensor (q and k of a qkv
/// projection); true in doubt.
inline bool may_overlap(const tensor& a, const tensor& b) {
    if (!a.exists() || !b.exists() || a.elements() == 0 || b.elements() == 0) return false;
    std::uintptr_t a_start = 0, b_start = 0;
    const auto a_axes = outer_axes(a, a_start), b_axes = outer_axes(b, b_start);
    const auto a_bytes = static_cast<std::uintptr_t>(span_of(a_axes, a.head_dim, 0)) * size_of(a.type);
    const auto b_bytes = static_cast<std::uintptr_t>(span_of(b_axes, b.head_dim, 0)) * size_of(b.type);
    if (a_start + a_bytes <= b_start || b_start + b_bytes <= a_start) return false;
    if (a.type != b.type || a_start % size_of(a.type) != b_start % size_of(b.type)) return true;

    // Modulo a stride that both share, slices of one packed tensor are intervals that do not meet.
    const auto apart = static_cast<std::int64_t>(b_start - a_start) / static_cast<std::int64_t>(size_of(a.type));
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
