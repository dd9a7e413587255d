// Memory that a view takes: pointers, arrays, spans and containers, with the element types that they may have.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>

#include "ropewalk/core/compiler.hpp"
#include "ropewalk/core/element.hpp"

namespace ropewalk {

namespace detail {

/// An array, or an object that std::data and std::size accept: std::vector, std::array, std::span.
template <class B>
concept SizedBuffer = requires(B& buffer) {
    { std::data(buffer) } -> std::convertible_to<const volatile void*>;
    { std::size(buffer) } -> std::convertible_to<std::size_t>;
};

template <class Data>
inline constexpr bool is_sized_buffer = SizedBuffer<std::remove_reference_t<Data>>;

/// True unless the argument is a temporary container, whose memory ends with the call.
template <class Data>
inline constexpr bool outlives_call = std::is_lvalue_reference_v<Data> || !is_sized_buffer<Data> ||
                                      std::ranges::enable_borrowed_range<std::remove_cvref_t<Data>>;

template <class Data>
concept TemporaryBuffer = !outlives_call<Data>;

/// The type of the objects of a pointer or a buffer, const included; void for anything else.
template <class Data>
constexpr auto pointee() {
    using B = std::remove_reference_t<Data>;
    if constexpr (SizedBuffer<B>) {
        return std::type_identity<std::remove_pointer_t<decltype(std::data(std::declval<B&>()))>>{};
    } else {
        return std::type_identity<std::remove_pointer_t<std::remove_cv_t<B>>>{};
    }
}
template <class Data>
using pointee_t = typename decltype(pointee<Data>())::type;

/// The element type that reads objects of type T: T itself, or f16 and bf16 for the compiler's own types.
template <class T>
struct element_of {
    using type = T;
};
#if defined(RW_FLOAT16)
template <>
struct element_of<RW_FLOAT16> {
    using type = f16;
};
#endif
#if defined(RW_BFLOAT16)
template <>
struct element_of<RW_BFLOAT16> {
    using type = bf16;
};
#endif
template <class T>
struct element_of<const T> {
    using type = const typename element_of<T>::type;
};

template <class T>
concept Integer16 =
    std::same_as<std::remove_const_t<T>, std::uint16_t> || std::same_as<std::remove_const_t<T>, std::int16_t>;

template <class Data>
inline constexpr bool is_memory = is_sized_buffer<Data> || std::is_pointer_v<std::decay_t<Data>>;
template <class Data>
using element_of_t = typename element_of<pointee_t<Data>>::type;

/// The element type of a view of `Data`; float for a wrong argument, which expect_memory() reports.
template <class Data>
using viewed_t = std::conditional_t<is_memory<Data> && ViewElement<std::remove_const_t<element_of_t<Data>>>,
                                    element_of_t<Data>, float>;

/// Reports an argument that is no memory of elements, with one message.
template <class Data>
constexpr void expect_memory() {
    constexpr bool is_unnamed_format = is_memory<Data> && Integer16<pointee_t<Data>>;
    constexpr bool is_element = ViewElement<std::remove_const_t<element_of_t<Data>>>;
    static_assert(is_memory<Data>,
                  "pass a pointer, a std::span or a container: rw::thd(v.data(), tokens, heads, head_dim)");
    static_assert(!is_unnamed_format, "name the 16-bit format: pass rw::as_f16(data) or rw::as_bf16(data)");
    static_assert(is_element || is_unnamed_format || !is_memory<Data>,
                  "elements are float, double, rw::f16 or rw::bf16");
    static_assert(outlives_call<Data>, "a view of a temporary container dangles: give the container a name");
}

/// The address of a pointer or a buffer, as a pointer to elements.
template <class T, class Data>
constexpr T* address_of(Data& data) {
    const auto cast = [](auto* address) {
        if constexpr (std::is_same_v<decltype(address), T*>) {
            return address;
        } else {
            return reinterpret_cast<T*>(address);
        }
    };
    if constexpr (SizedBuffer<Data>) {
        return cast(std::data(data));
    } else if constexpr (std::is_pointer_v<Data>) {
        return cast(data);
    } else {
        return nullptr;  // expect_memory() reports the type
    }
}

/// Reinterprets 16-bit numbers as elements of type E, which must be f16 or bf16.
template <class E, class Data>
constexpr auto as_elements(Data&& data) {
    using stored = pointee_t<Data>;
    static_assert(sizeof(stored) == sizeof(E) && std::is_trivially_copyable_v<stored>, "elements must have 16 bits");
    static_assert(sizeof(stored) != sizeof(E) || !Element<std::remove_const_t<stored>>,
                  "the elements are rw::f16 or rw::bf16 already");
    static_assert(outlives_call<Data>, "a view of a temporary container dangles: give the container a name");
    using element = std::conditional_t<std::is_const_v<stored>, const E, E>;
    if constexpr (is_sized_buffer<Data>) {
        return std::span<element>(address_of<element>(data), std::size(data));
    } else {
        return address_of<element>(data);
    }
}

}  // namespace detail

/// Takes 16-bit objects (std::uint16_t, __half, …) as IEEE binary16: a pointer gives an f16*, an array, a span or a
/// container gives a std::span<f16>. The bits stay where they are.
template <class Data>
constexpr auto as_f16(Data&& data) {
    return detail::as_elements<f16>(std::forward<Data>(data));
}

/// The same for bfloat16.
template <class Data>
constexpr auto as_bf16(Data&& data) {
    return detail::as_elements<bf16>(std::forward<Data>(data));
}

}  // namespace ropewalk
