// Messages for calls of rotate() and rerotate() whose arguments do not fit.
#pragma once

#include <string_view>

#include "ropewalk/core/buffer.hpp"
#include "ropewalk/core/positions.hpp"
#include "ropewalk/core/view.hpp"
#include "ropewalk/encoding.hpp"

namespace ropewalk::detail {

/// The valid arguments of a backend, whose optional last one is of type `Last`. Never defined.
template <class Last>
struct signatures {
    template <class T>
    static void rotate(const view<T>& q, const Encoding&, const positions&, const Last& = {});
    template <class T>
    static void rotate(const view<T>& q, const view<T>& k, const Encoding&, const positions&, const Last& = {});
    template <class In, class T>
        requires std::same_as<std::remove_const_t<In>, T>
    static void rotate(const view<In>& q, const view<In>& k, const view<T>& q_out, const view<T>& k_out,
                       const Encoding&, const positions&, const Last& = {});
    template <class T>
    static void rerotate(const view<T>& k, const Encoding&, const positions&, const Encoding&, const positions&,
                         const Last& = {});
};

/// Arguments of rotate() with options of type `Options`.
template <class Options, class... Args>
concept RotateCall = requires(const Args&... args) { signatures<Options>::rotate(args...); };

/// Arguments of rerotate() with a last argument of type `Last`, which is optional.
template <class Last, class... Args>
concept RerotateCall = requires(const Args&... args) { signatures<Last>::rerotate(args...); };

enum class mistake : std::uint8_t {
    none,
    container,
    unnamed_format,
    elements,
    number,
    expression,
    const_in_place,
    mixed_elements,
    no_encoding,
    no_positions,
};

/// The mistake of one argument, or none.
template <class T>
consteval mistake mistake_of() {
    if constexpr (std::derived_from<T, tensor> || std::same_as<T, Encoding> || std::convertible_to<T, positions>) {
        return mistake::none;
    } else if constexpr (std::convertible_to<T, std::string_view> || AnyAxis<T>) {
        return mistake::expression;
    } else if constexpr (is_memory<T>) {
        using object = std::remove_const_t<pointee_t<T>>;
        if constexpr (Integer16<object>) return mistake::unnamed_format;
        if constexpr (std::is_integral_v<object>) return mistake::number;
        return ViewElement<typename element_of<object>::type> ? mistake::container : mistake::elements;
    } else {
        return std::is_arithmetic_v<T> ? mistake::number : mistake::none;
    }
}

/// The first mistake of the arguments of a call, or none.
template <class... Args>
consteval mistake first_mistake() {
    for (const mistake each : {mistake_of<Args>()...})
        if (each != mistake::none) return each;
    int views = 0, read_only = 0, types[4] = {};
    const auto count = [&]<class T>(const view<T>*) {
        ++views, read_only += std::is_const_v<T> ? 1 : 0;
        ++types[static_cast<int>(type_of<std::remove_const_t<T>>)];
    };
    const auto count_view = [&]<class T>(const T* argument) {
        if constexpr (requires { count(argument); }) count(argument);
    };
    (count_view(static_cast<const Args*>(nullptr)), ...);
    for (const int each : types)
        if (each != 0 && each != views) return mistake::mixed_elements;
    if (read_only != 0 && views <= 2) return mistake::const_in_place;
    if ((!std::same_as<Args, Encoding> && ...)) return mistake::no_encoding;
    if ((!std::convertible_to<Args, positions> && ...)) return mistake::no_positions;
    return mistake::none;
}

/// Stops the compiler with one message about the arguments of a call that is not valid.
template <class... Args>
constexpr void report_mistake() {
    constexpr mistake found = first_mistake<Args...>();
    static_assert(found != mistake::container, "pass rw::thd(v.data(), tokens, heads, head_dim)");
    static_assert(found != mistake::unnamed_format,
                  "name the 16-bit format: pass rw::thd(rw::as_f16(data), tokens, heads, head_dim), or rw::as_bf16");
    static_assert(found != mistake::elements, "elements are float, double, rw::f16 or rw::bf16");
    static_assert(found != mistake::number, "positions are rw::offset{first} or rw::ids(v)");
    static_assert(found != mistake::expression, "pass an encoding: rw::make_encoding(geometry, \"linear:8\")");
    static_assert(found != mistake::const_in_place,
                  "rotating in place writes: const elements need an output of their own");
    static_assert(found != mistake::mixed_elements, "q, k and their outputs must have the same element type");
    static_assert(found != mistake::no_encoding, "pass an encoding after the views: rw::make_encoding(geometry, …)");
    static_assert(found != mistake::no_positions, "name the positions after the encoding: rw::offset{0} counts from 0");
    static_assert(
        found != mistake::none,
        "the arguments are rotate<layout>(q, k, encoding, positions, options), with k and options optional, or "
        "rerotate<layout>(k, source, source_positions, target, target_positions)");
}

/// Stops the compiler where a call has no layout, or something else in its place.
template <class... Args>
constexpr void report_no_layout() {
    static_assert(sizeof...(Args) == 0, "name the layout: rotate<rw::half_split>(…) or rotate<rw::interleaved>(…)");
}

/// Overloads for calls without a layout, which backends with a layout in every call add to their own.
namespace no_layout {

template <class NoLayout, class... Args>
    requires(!Layout<NoLayout>)
void rotate(const Args&... /*args*/) {
    report_no_layout<NoLayout>();
}
template <class NoLayout, class... Args>
    requires(!Layout<NoLayout>)
void rerotate(const Args&... /*args*/) {
    report_no_layout<NoLayout>();
}
template <class Q, class... Args>
void rotate(const Q& /*q*/, const Args&... /*args*/) {
    report_no_layout<Q>();
}
template <class K, class... Args>
void rerotate(const K& /*k*/, const Args&... /*args*/) {
    report_no_layout<K>();
}

}  // namespace no_layout

}  // namespace ropewalk::detail
