// NTK-aware scaling, which raises the base.
#pragma once

#include "ropewalk/policy/concepts.hpp"

namespace ropewalk {

namespace detail {
/// Returns θ_j · α^(−2j/(d−2)), the frequency for the base b·α^(d/(d−2)).
constexpr real with_ntk_base(const real& theta, const real& alpha, std::int64_t pair, const Geometry& geometry) {
    if (pair == 0 || alpha == real(1)) return theta;
    return theta * pow(alpha, -(real(2 * pair) / real(geometry.width() - 2)));
}
}  // namespace detail

/// θ'_j = θ_j · alpha^(−2j/(d−2)) (NTK-aware scaling; YaRN, arXiv 2309.00071, §3.1). Pair 0 keeps its frequency; that
/// of the last pair is divided by exactly alpha.
struct Ntk {
    double alpha = 0;  ///< required: divisor of the lowest frequency; positive

    static constexpr std::string_view name = "ntk";
    static constexpr std::string_view about =
        "A larger base: the fastest pair stays, the slowest rotates alpha times slower.";
    static constexpr auto parameters = std::tuple{parameter<Ntk, double>{"alpha", &Ntk::alpha, true}};

    constexpr void validate(const Geometry& /*geometry*/ = {}) const {
        detail::expect_given(!detail::same_bits(alpha, 0), name, "alpha", "a positive number", "ntk:8");
        detail::expect_positive(name, "alpha", alpha);
    }
    constexpr real operator()(const real& theta, std::int64_t pair, const Geometry& geometry) const {
        return detail::with_ntk_base(theta, real(alpha), pair, geometry);
    }
    static constexpr Ntk neutral() { return {.alpha = 1}; }
    static constexpr Ntk example() { return {.alpha = 8}; }
};

}  // namespace ropewalk
