// Non-owning strided views of queries and keys.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <string_view>
#include <type_traits>

#include "ropewalk/core/buffer.hpp"
#include "ropewalk/core/compiler.hpp"
#include "ropewalk/core/element.hpp"
#include "ropewalk/core/error.hpp"
#include "ropewalk/core/wide.hpp"

namespace ropewalk {

namespace detail {

/// Returns extent · stride modulo 2^64: validation reports shapes that large.
constexpr std::int64_t next_stride(std::int64_t extent, std::int64_t stride) {
    return static_cast<std::int64_t>(static_cast<std::uint64_t>(extent) * static_cast<std::uint64_t>(stride));
}

/// An axis of a strided array: entries, and elements from one to the next.
struct strided_axis {
    std::int64_t extent, stride;
};

/// Returns |stride|, or 2^63 − 1 for −2^63.
constexpr std::int64_t length_of(std::int64_t stride) {
    return stride == std::numeric_limits<std::int64_t>::min() ? std::numeric_limits<std::int64_t>::max()
           : stride < 0                                       ? -stride
                                                              : stride;
}

/// Returns the elements from the first to the last of an array whose innermost axis is contiguous, at most 2^63 − 1.
/// The stride of an axis with one entry does not count.
constexpr std::int64_t reach_of(std::int64_t innermost, std::initializer_list<strided_axis> axes) {
    auto reach = static_cast<std::uint64_t>(innermost);
    for (const auto& [extent, stride] : axes) {
        if (extent <= 1) continue;
        reach = saturating_sum(reach, saturating_product(static_cast<std::uint64_t>(extent - 1),
                                                         static_cast<std::uint64_t>(length_of(stride))));
    }
    return static_cast<std::int64_t>(reach);
}

/// Limit of reach_of() for everything that a kernel addresses. Sums and small multiples of such distances in bytes fit
/// 64 bits, and no address space has more.
inline constexpr std::int64_t max_reach = std::int64_t{1} << 56;

}  // namespace detail

/// A non-owning [batch, tokens, heads, head_dim] tensor with one stride per axis, in elements. The strides give the
/// order of the axes in memory. Kernels require contiguous heads (stride_element 1).
struct tensor {
    void* data = nullptr;  ///< null: no tensor
    element_type type = element_type::f32;
    std::int64_t batch = 1, tokens = 0, heads = 0, head_dim = 0;
    std::int64_t stride_batch = 0, stride_token = 0, stride_head = 0, stride_element = 1;

    [[nodiscard]] constexpr bool exists() const { return data != nullptr; }
    /// Returns the number of elements; 2^63 − 1 on overflow, or if an extent is negative and none is 0.
    [[nodiscard]] RW_INLINE constexpr std::int64_t elements() const {
        // Four extents of 15 bits cannot overflow: a fast path for small calls.
        if (((batch | tokens | heads | head_dim) >> 15) == 0) return batch * tokens * heads * head_dim;
        std::uint64_t count = 1;
        for (const std::int64_t extent : {batch, tokens, heads, head_dim})
            count = detail::saturating_product(count, static_cast<std::uint64_t>(extent));
        return static_cast<std::int64_t>(count);
    }
    /// Returns the elements from the first to the last in memory, at most 2^63 − 1.
    [[nodiscard]] RW_INLINE constexpr std::int64_t reach() const {
        return detail::reach_of(head_dim, {{heads, stride_head}, {tokens, stride_token}, {batch, stride_batch}});
    }
    constexpr bool operator==(const tensor&) const = default;  ///< same memory, same shape, same strides
};

/// A tensor with a static element type. `view<const T>` is read-only.
template <class T>
    requires ViewElement<std::remove_const_t<T>>
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
        : view(elements, 1, tokens_, heads_, head_dim_,
               detail::next_stride(tokens_, detail::next_stride(heads_, head_dim_)),
               detail::next_stride(heads_, head_dim_), head_dim_) {}
    /// Converts to a read-only view. (A template, so that view<const T> has no conversion to itself.)
    template <class Read>
        requires(!std::is_const_v<T> && std::is_same_v<Read, const T>)
    constexpr operator view<Read>() const {  // NOLINT(google-explicit-constructor)
        view<const T> result;
        static_cast<tensor&>(result) = *this;
        return result;
    }
};

/// Shape and strides of a strided view, in elements.
///
/// A stride that is left out continues the axes inside it in the order [batch, tokens, heads, head_dim]: stride_head is
/// head_dim, stride_token is heads · stride_head and stride_batch is tokens · stride_token.
struct strided_shape {
    /// A number that was left out. Different from 0, which is a stride that repeats one entry.
    static constexpr std::int64_t not_given = std::numeric_limits<std::int64_t>::min();

    std::int64_t batch = 1;
    std::int64_t tokens = not_given, heads = not_given, head_dim = not_given;  ///< required
    std::int64_t stride_batch = not_given, stride_token = not_given, stride_head = not_given;
};

namespace detail {

inline namespace RW_ISA {

/// Checks that a buffer of `size` elements holds every element of a view that starts with it.
constexpr void check_buffer(const tensor& t, std::size_t size) {
    const auto refuse = [&t](std::string_view problem, const auto&... values) {
        fail(problem, t.batch, t.tokens, t.heads, t.head_dim, values...);
    };
    if (t.batch < 0 || t.tokens < 0 || t.heads < 0 || t.head_dim < 0)
        refuse("a view [batch {}, tokens {}, heads {}, head_dim {}]: no extent may be negative");
    if (t.elements() == 0) return;
    for (const auto& [extent, stride] :
         {strided_axis{t.heads, t.stride_head}, {t.tokens, t.stride_token}, {t.batch, t.stride_batch}}) {
        if (extent > 1 && stride < 0) {
            refuse("a view [batch {}, tokens {}, heads {}, head_dim {}] with the stride {} begins before its buffer",
                   stride);
        }
    }
    const auto needed = static_cast<std::uint64_t>(t.reach());
    if (needed > size) {
        refuse("a view [batch {}, tokens {}, heads {}, head_dim {}] needs {} elements, but its buffer has {}", needed,
               size);
    }
}

}  // namespace RW_ISA

/// A view of a pointer or a buffer with all strides given. The size of a buffer is checked.
template <class Data>
constexpr view<viewed_t<Data>> view_memory(std::remove_reference_t<Data>& data, const strided_shape& s) {
    expect_memory<Data>();
    const view<viewed_t<Data>> result(address_of<viewed_t<Data>>(data), s.batch, s.tokens, s.heads, s.head_dim,
                                      s.stride_batch, s.stride_token, s.stride_head);
    if constexpr (is_sized_buffer<Data>) check_buffer(result, std::size(data));
    return result;
}

/// Sets the strides that were left out.
constexpr strided_shape completed(strided_shape s) {
    constexpr std::int64_t not_given = strided_shape::not_given;
    const auto require = [](std::int64_t extent, std::string_view name) {
        RW_EXPECTS(extent != not_given, "a strided view needs {}: write {.tokens = …, .heads = …, .head_dim = …}",
                   name);
    };
    require(s.tokens, "tokens"), require(s.heads, "heads"), require(s.head_dim, "head_dim");
    const auto complete = [](std::string_view name, std::int64_t& stride, std::int64_t extent, std::int64_t inner,
                             std::int64_t inner_stride, std::int64_t entry) {
        if (stride != not_given) return;
        RW_EXPECTS(extent <= 1 || inner <= 1 || inner_stride >= entry,
                   "a strided view needs {}: the axes inside it are not in the order [batch, tokens, heads, head_dim], "
                   "because a stride is {} and an entry has {} elements",
                   name, inner_stride, entry);
        stride = next_stride(inner, inner_stride);
    };
    if (s.stride_head == not_given) s.stride_head = s.head_dim;
    complete("stride_token", s.stride_token, s.tokens, s.heads, s.stride_head, s.head_dim);
    complete("stride_batch", s.stride_batch, s.batch, s.tokens, s.stride_token, next_stride(s.heads, s.stride_head));
    return s;
}

/// A view of an mdspan: rank, extents and strides as std::mdspan has them.
template <class M>
concept Mdspan = requires(const M& m, std::size_t axis) {
    m.data_handle();
    { m.extent(axis) } -> std::convertible_to<std::int64_t>;
    { m.stride(axis) } -> std::convertible_to<std::int64_t>;
    { M::rank() } -> std::convertible_to<std::size_t>;
};

}  // namespace detail

// `data` of the functions below is a pointer, or an array, a std::span or a container. A buffer that knows its size
// must have at least as many elements as the view; further elements are not used. Otherwise ropewalk::error has both
// numbers. Elements are float, double, f16 or bf16, the compiler's own _Float16 or __bf16, or 16-bit numbers that
// as_f16() or as_bf16() names. An address of const elements gives a read-only view.

/// Contiguous [tokens, heads, head_dim], for ragged batches too.
template <class Data>
constexpr view<detail::viewed_t<Data>> thd(Data&& data, std::int64_t tokens, std::int64_t heads,
                                           std::int64_t head_dim) {
    const std::int64_t token = detail::next_stride(heads, head_dim);
    return detail::view_memory<Data>(data, {.tokens = tokens,
                                            .heads = heads,
                                            .head_dim = head_dim,
                                            .stride_batch = detail::next_stride(tokens, token),
                                            .stride_token = token,
                                            .stride_head = head_dim});
}

/// Contiguous [batch, tokens, heads, head_dim].
template <class Data>
constexpr view<detail::viewed_t<Data>> bshd(Data&& data, std::int64_t batch, std::int64_t tokens, std::int64_t heads,
                                            std::int64_t head_dim) {
    const std::int64_t token = detail::next_stride(heads, head_dim);
    return detail::view_memory<Data>(data, {.batch = batch,
                                            .tokens = tokens,
                                            .heads = heads,
                                            .head_dim = head_dim,
                                            .stride_batch = detail::next_stride(tokens, token),
                                            .stride_token = token,
                                            .stride_head = head_dim});
}

/// Contiguous [batch, heads, tokens, head_dim].
template <class Data>
constexpr view<detail::viewed_t<Data>> bhsd(Data&& data, std::int64_t batch, std::int64_t heads, std::int64_t tokens,
                                            std::int64_t head_dim) {
    const std::int64_t head = detail::next_stride(tokens, head_dim);
    return detail::view_memory<Data>(data, {.batch = batch,
                                            .tokens = tokens,
                                            .heads = heads,
                                            .head_dim = head_dim,
                                            .stride_batch = detail::next_stride(heads, head),
                                            .stride_token = head_dim,
                                            .stride_head = head});
}

/// Contiguous [tokens, batch, heads, head_dim].
template <class Data>
constexpr view<detail::viewed_t<Data>> sbhd(Data&& data, std::int64_t tokens, std::int64_t batch, std::int64_t heads,
                                            std::int64_t head_dim) {
    const std::int64_t row = detail::next_stride(heads, head_dim);
    return detail::view_memory<Data>(data, {.batch = batch,
                                            .tokens = tokens,
                                            .heads = heads,
                                            .head_dim = head_dim,
                                            .stride_batch = row,
                                            .stride_token = detail::next_stride(batch, row),
                                            .stride_head = head_dim});
}

/// A view with named strides, such as the keys inside a packed qkv buffer:
/// `strided(qkv + q_elements, {.tokens = 7, .heads = 8, .head_dim = 64, .stride_token = qkv_elements})`.
template <class Data>
constexpr view<detail::viewed_t<Data>> strided(Data&& data, const strided_shape& shape) {
    return detail::view_memory<Data>(data, detail::completed(shape));
}

/// The view of an mdspan [tokens, heads, head_dim] or [batch, tokens, heads, head_dim] with any strides: std::mdspan,
/// or an object with its rank(), extent(), stride() and data_handle(). The last stride must be 1 in a call.
template <detail::Mdspan M>
constexpr auto view_of(const M& mdspan) {
    constexpr std::size_t rank = M::rank();
    static_assert(rank == 3 || rank == 4, "an mdspan is [tokens, heads, head_dim] or [batch, tokens, heads, head_dim]");
    auto data = mdspan.data_handle();
    const auto extent = [&](std::size_t axis) { return static_cast<std::int64_t>(mdspan.extent(axis)); };
    const auto stride = [&](std::size_t axis) { return static_cast<std::int64_t>(mdspan.stride(axis)); };
    constexpr std::size_t token = rank - 3;
    auto result = detail::view_memory<decltype(data)>(data, {.batch = rank == 4 ? extent(0) : 1,
                                                             .tokens = extent(token),
                                                             .heads = extent(token + 1),
                                                             .head_dim = extent(token + 2),
                                                             .stride_batch = rank == 4 ? stride(0) : 0,
                                                             .stride_token = stride(token),
                                                             .stride_head = stride(token + 1)});
    result.stride_element = stride(token + 2);
    return result;
}

}  // namespace ropewalk
