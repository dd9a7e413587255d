// Gemma-4's proportional RoPE.
#pragma once

#include "ropewalk/policy/concepts.hpp"

namespace ropewalk {

/// θ'_j = θ_j/factor for the first int(partial_rotary_factor · d/2) pairs, 0 for the others (Transformers'
/// `proportional`, Gemma-4). Not the same as a partial width: d is the whole head, so the exponent is not stretched and
/// the pairs stay (j, j + d/2).
struct Proportional {
    double partial_rotary_factor = 1;  ///< the part of the pairs that turn, in [0, 1]
    double factor = 1;                 ///< as Linear's

    static constexpr std::string_view name = "proportional";
    static constexpr std::string_view about = "Turns only the first part of the pairs and holds the others still.";
    using number = parameter<Proportional, double>;
    static constexpr auto parameters = std::tuple{number{"partial_rotary_factor", &Proportional::partial_rotary_factor},
                                                  number{"factor", &Proportional::factor}};

    constexpr void validate(const Geometry& /*geometry*/) const {
        RW_EXPECTS(detail::is_finite(partial_rotary_factor) && partial_rotary_factor >= 0 && partial_rotary_factor <= 1,
                   "proportional: partial_rotary_factor must lie in [0, 1], got {}", partial_rotary_factor);
        RW_EXPECTS(detail::is_finite(factor) && factor > 0, "proportional: factor must be a positive number, got {}",
                   factor);
    }
    constexpr real operator()(const real& theta, std::int64_t pair, const Geometry& geometry) const {
        // Truncated in double, as Transformers does.
        const auto turning =
            static_cast<std::int64_t>(partial_rotary_factor * static_cast<double>(geometry.width()) / 2);
        return pair < turning ? theta / real(factor) : real(0);
    }
    static constexpr Proportional neutral() { return {}; }
    static constexpr Proportional example() { return {.partial_rotary_factor = 0.25}; }
};

}  // namespace ropewalk
