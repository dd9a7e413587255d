// Proportional RoPE from Gemma-4.
#pragma once

#include "ropewalk/policy/concepts.hpp"

namespace ropewalk {

/// θ'_j = θ_j/factor for the first int(partial_rotary_factor · d/2) pairs, 0 for the others (Transformers'
/// `proportional`, Gemma-4). Different from a partial width: d is the whole head, so the exponents and the pairs
/// (j, j + d/2) are those of the whole head.
struct Proportional {
    double partial_rotary_factor = -1;  ///< required: fraction of the pairs that rotate, in [0, 1]
    double factor = 1;                  ///< divisor of the frequencies, as in Linear; positive

    static constexpr std::string_view name = "proportional";
    static constexpr std::string_view about =
        "Rotates only the first part of the pairs and leaves the others unchanged.";
    using number = parameter<Proportional, double>;
    static constexpr auto parameters =
        std::tuple{number{"partial_rotary_factor", &Proportional::partial_rotary_factor, true},
                   number{"factor", &Proportional::factor}};

    constexpr void validate(const Geometry& /*geometry*/ = {}) const {
        detail::expect_given(!detail::same_bits(partial_rotary_factor, -1), name, "partial_rotary_factor",
                             "a number in [0, 1]", "proportional:0.25");
        RW_EXPECTS(detail::is_finite(partial_rotary_factor) && partial_rotary_factor >= 0 && partial_rotary_factor <= 1,
                   "proportional: partial_rotary_factor must lie in [0, 1], got {}", partial_rotary_factor);
        detail::expect_positive(name, "factor", factor);
    }
    constexpr real operator()(const real& theta, std::int64_t pair, const Geometry& geometry) const {
        // Truncated in double, as in Transformers.
        const auto rotating =
            static_cast<std::int64_t>(partial_rotary_factor * static_cast<double>(geometry.width()) / 2);
        return pair < rotating ? theta / real(factor) : real(0);
    }
    static constexpr Proportional neutral() { return {.partial_rotary_factor = 1}; }
    static constexpr Proportional example() { return {.partial_rotary_factor = 0.25}; }
};

}  // namespace ropewalk
