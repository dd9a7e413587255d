// Linear scaling, known as position interpolation.
#pragma once

#include "ropewalk/policy/concepts.hpp"

namespace ropewalk {

/// θ'_j = θ_j / factor (position interpolation, arXiv 2306.15595, eq. 4; Giraffe, arXiv 2308.10882, §4.1).
struct Linear {
    double factor = 0;  ///< required: extended over trained context length; positive

    static constexpr std::string_view name = "linear";
    static constexpr std::string_view about = "Position interpolation: every pair rotates factor times slower.";
    static constexpr auto parameters = std::tuple{parameter<Linear, double>{"factor", &Linear::factor, true}};

    constexpr void validate(const Geometry& /*geometry*/ = {}) const {
        detail::expect_given(!detail::same_bits(factor, 0), name, "factor", "a positive number", "linear:8");
        detail::expect_positive(name, "factor", factor);
    }
    constexpr real operator()(const real& theta, std::int64_t /*pair*/, const Geometry& /*geometry*/) const {
        return theta / real(factor);
    }
    static constexpr Linear neutral() { return {.factor = 1}; }
    static constexpr Linear example() { return {.factor = 8}; }
};

}  // namespace ropewalk
