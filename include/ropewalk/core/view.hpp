// Non-owning strided views of queries and keys.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <type_traits>

#include "ropewalk/core/element.hpp"
#include "ropewalk/core/wide.hpp"

namespace ropewalk {

/// A non-owning [batch, tokens, heads, head_dim] tensor with one stride per axis, in elements. The strides give the
/// order of the axes in memory. Kernels require contiguous heads (stride_element 1).
struct tensor {
    void* data = nullptr;  ///< null: no tensor
    element_type type = element_type::f32;
    std::int64_t batch = 1, tokens = 0, heads = 0, head_dim = 0;
    std::int64_t stride_batch = 0, stride_token = 0, stride_head = 0, stride_element = 1;

    [[nodiscard]] constexpr bool exists() const { return data != nullptr; }
    /// Returns the number of elements; 2^63 − 1 on overflow, or if an extent is negative and none is 0.
    [[nodiscard]] constexpr std::int64_t elements() const {
        // Four extents of 15 bits cannot overflow: a fast path for small calls.
        if (((batch | tokens | heads | head_dim) >> 15) == 0) return batch * tokens * heads * head_dim;
        constexpr auto limit = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
        std::uint64_t count = 1;
        for (const std::int64_t extent : {batch, tokens, heads, head_dim}) {
            const detail::wide product = detail::multiply(count, static_cast<std::uint64_t>(extent));
            count = product.high == 0 && product.low <= limit ? product.low : limit;
        }
        return static_cast<std::int64_t>(count);
    }
    constexpr bool operator==(const tensor&) const = default;  ///< same memory, same shape, same strides
};

/// A tensor with a static element type. `view<const T>` is read-only.
template <class T>
    requires Element<std::remove_const_t<T>>
struct view : tensor {
    view() = default;
    constexpr view(T* elements, std::int64_t batch_, std::int64_t tokens_, std::int64_t heads_, std::int64_t head_dim_,
                   std::int64_t stride_batch_, std::int64_t stride_token_, std::int64_t stride_head_)
        : tensor{const_cast<std::remove_const_t<T>*>(elements),
                 type_of<std::remove_const_t<T>>,
                 batch_,
                 tokens_,
                 heads_,
                 head_dim_,
                 stride_batch_,
                 stride_token_,
                 stride_head_,
                 1} {}
    /// Contiguous [tokens, heads, head_dim].
    constexpr view(T* elements, std::int64_t tokens_, std::int64_t heads_, std::int64_t head_dim_)
        : view(elements, 1, tokens_, heads_, head_dim_, tokens_ * heads_ * head_dim_, heads_ * head_dim_, head_dim_) {}
    /// Converts to a read-only view. (A template, so that view<const T> has no conversion to itself.)
    template <class Read>
        requires(!std::is_const_v<T> && std::is_same_v<Read, const T>)
    constexpr operator view<Read>() const {  // NOLINT(google-explicit-constructor)
        view<const T> result;
        static_cast<tensor&>(result) = *this;
        return result;
    }
};

/// Contiguous [tokens, heads, head_dim], for ragged batches too.
template <class T>
constexpr view<T> thd(T* data, std::int64_t tokens, std::int64_t heads, std::int64_t head_dim) {
    return {data, tokens, heads, head_dim};
}

/// Contiguous [batch, tokens, heads, head_dim].
template <class T>
constexpr view<T> bshd(T* data, std::int64_t batch, std::int64_t tokens, std::int64_t heads, std::int64_t head_dim) {
    return {data, batch, tokens, heads, head_dim, tokens * heads * head_dim, heads * head_dim, head_dim};
}

/// Contiguous [batch, heads, tokens, head_dim].
template <class T>
constexpr view<T> bhsd(T* data, std::int64_t batch, std::int64_t heads, std::int64_t tokens, std::int64_t head_dim) {
    return {data, batch, tokens, heads, head_dim, heads * tokens * head_dim, head_dim, tokens * head_dim};
}

/// Contiguous [tokens, batch, heads, head_dim].
template <class T>
constexpr view<T> sbhd(T* data, std::int64_t tokens, std::int64_t batch, std::int64_t heads, std::int64_t head_dim) {
    return {data, batch, tokens, heads, head_dim, heads * head_dim, batch * heads * head_dim, head_dim};
}

}  // namespace ropewalk
