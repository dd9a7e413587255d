// NTK-aware scaling: another base.
#pragma once

#include "ropewalk/policy/concepts.hpp"

namespace ropewalk {

namespace detail {
/// θ_j · α^(−2j/(d−2)), which is the base b·α^(d/(d−2)): the first pair stays, the last one is divided by α.
constexpr real with_ntk_base(const real& theta, const real& alpha, std::int64_t pair, const Geometry& geometry) {
    if (pair == 0 || alpha == real(1)) return theta;
    return theta * pow(alpha, -(real(2 * pair) / real(geometry.width() - 2)));
}
}  // namespace detail

/// θ'_j = θ_j · alpha^(−2j/(d−2)) (NTK-aware scaling; YaRN, arXiv 2309.00071, §3.1): pair 0 keeps its frequency, the
/// last pair's is divided by exactly alpha.
struct Ntk {
    double alpha = 1;  ///< how many times longer the longest wave becomes; positive

    static constexpr std::string_view name = "ntk";
    static constexpr std::string_view about =
        "A larger base: the fastest pair stays, the slowest turns alpha times slower.";
    static constexpr auto parameters = std::tuple{parameter<Ntk, double>{"alpha", &Ntk::alpha}};

    constexpr void validate(const Geometry& /*geometry*/) const {
        RW_EXPECTS(detail::is_finite(alpha) && alpha > 0, "ntk: alpha must be a positive number, got {}", alpha);
    }
    constexpr real operator()(const real& theta, std::int64_t pair, const Geometry& geometry) const {
        return detail::with_ntk_base(theta, real(alpha), pair, geometry);
    }
    static constexpr Ntk neutral() { return {.alpha = 1}; }
    static constexpr Ntk example() { return {.alpha = 8}; }
};

}  // namespace ropewalk
