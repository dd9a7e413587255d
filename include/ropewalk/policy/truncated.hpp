// Truncated basis from Giraffe.
#pragma once

#include <optional>

#include "ropewalk/policy/concepts.hpp"

namespace ropewalk {

/// θ'_j = θ_j if θ_j ≥ b, rho if a ≤ θ_j < b, else 0 (Giraffe, arXiv 2308.10882, §4.3). Set either `length` T, which
/// means b = 2π/T, a = b/8 and rho = 2π/(16 T) as in Giraffe's code, or all of a, b and rho, in radians per token.
struct Truncated {
    std::optional<double> length{};  ///< T, tokens; positive
    std::optional<double> a{}, b{}, rho{};

    static constexpr std::string_view name = "truncated";
    static constexpr std::string_view about =
        "Keeps high frequencies, sets medium ones to a single low frequency and low ones to zero.";
    using optional_member = parameter<Truncated, std::optional<double>>;
    static constexpr auto parameters =
        std::tuple{optional_member{"length", &Truncated::length}, optional_member{"a", &Truncated::a},
                   optional_member{"b", &Truncated::b}, optional_member{"rho", &Truncated::rho}};

    constexpr void validate(const Geometry& /*geometry*/ = {}) const {
        const int edges = int{a.has_value()} + int{b.has_value()} + int{rho.has_value()};
        detail::expect_given(length || edges != 0, name, "length", "a number of tokens", "truncated:4096");
        RW_EXPECTS(length ? edges == 0 : edges == 3,
                   "truncated: set either length or all of a, b and rho, got {} and {} of the three",
                   length ? "length" : "no length", edges);
        if (length) {
            detail::expect_positive(name, "length", *length);
            return;
        }
        RW_EXPECTS(detail::is_finite(*a) && detail::is_finite(*b) && 0 <= *a && *a <= *b,
                   "truncated: 0 <= a <= b must hold, got a = {} and b = {}", *a, *b);
        RW_EXPECTS(detail::is_finite(*rho) && *rho >= 0, "truncated: rho must not be negative, got {}", *rho);
    }
    constexpr real operator()(const real& theta, std::int64_t /*pair*/, const Geometry& /*geometry*/) const {
        const real upper = length ? two_pi / real(*length) : real(*b);
        const real lower = length ? upper.scaled(-3) : real(*a);
        const real plateau = length ? upper.scaled(-4) : real(*rho);
        if (theta >= upper) return theta;
        return theta >= lower ? plateau : real(0);
    }
    static constexpr Truncated neutral() { return {.length = {}, .a = 0.0, .b = 0.0, .rho = 0.0}; }
    static constexpr Truncated example() { return {.length = 4096.0}; }
};

}  // namespace ropewalk
