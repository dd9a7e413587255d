// Composition of policies: Linear{.factor = 4} | Truncated{.length = 4096}.
#pragma once

#include <tuple>

#include "ropewalk/policy/concepts.hpp"

namespace ropewalk {

/// A sequence of policies, applied from left to right.
template <AnyAxis... Policies>
struct Composed {
    std::tuple<Policies...> policies;
};

namespace detail {
template <class T>
struct as_tuple {
    static constexpr std::tuple<T> of(const T& policy) { return {policy}; }
};
template <class... P>
struct as_tuple<Composed<P...>> {
    static constexpr const std::tuple<P...>& of(const Composed<P...>& composed) { return composed.policies; }
};
template <class T>
inline constexpr bool composable = AnyAxis<T>;
template <class... P>
inline constexpr bool composable<Composed<P...>> = true;

template <class... P>
constexpr Composed<P...> compose(std::tuple<P...> policies) {
    return {std::move(policies)};
}
}  // namespace detail

/// Returns the composition that applies `left`, then `right`.
template <class Left, class Right>
    requires(detail::composable<Left> && detail::composable<Right>)
constexpr auto operator|(const Left& left, const Right& right) {
    return detail::compose(std::tuple_cat(detail::as_tuple<Left>::of(left), detail::as_tuple<Right>::of(right)));
}

}  // namespace ropewalk
