// Power scaling from Giraffe.
#pragma once

#include "ropewalk/policy/concepts.hpp"

namespace ropewalk {

/// θ'_j = θ_j · (1 − 2j/d)^k (Giraffe, arXiv 2308.10882, §4.4): high frequencies
/// hardly change, low frequencies shrink.
struct Power {
    double k = -1;  ///< required: exponent in [0, 64]; 0.1 and 0.5 in the paper; 0 changes nothing

    static constexpr std::string_view name = "power";
    static constexpr std::string_view about =
        "Scales frequency j by (1 - 2j/d)^k: the fastest hardly change, the slowest nearly stop.";
    static constexpr auto parameters = std::tuple{parameter<Power, double>{"k", &Power::k, true}};

    constexpr void validate(const Geometry& /*geometry*/ = {}) const {
        detail::expect_given(!detail::same_bits(k, -1), name, "k", "an exponent in [0, 64]", "power:0.5");
        RW_EXPECTS(detail::is_finite(k) && k >= 0 && k <= 64, "power: k must lie in [0, 64], got {}", k);
    }
    constexpr real operator()(const real& theta, std::int64_t pair, const Geometry& geometry) const {
        return theta * pow(real(1) - real(2 * pair) / real(geometry.width()), real(k));
    }
    static constexpr Power neutral() { return {.k = 0}; }
    static constexpr Power example() { return {.k = 0.5}; }
};

}  // namespace ropewalk
