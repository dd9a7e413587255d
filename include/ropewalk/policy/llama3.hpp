// Scaling by wavelength from Llama 3.1.
#pragma once

#include "ropewalk/policy/concepts.hpp"

namespace ropewalk {

/// With the wavelength λ = 2π/θ_j in tokens and L = original_length, θ'_j is
/// - θ_j if λ ≤ L/high_freq_factor,
/// - θ_j/factor if λ > L/low_freq_factor,
/// - else (1 − t)·θ_j/factor + t·θ_j with t = (L/λ − low_freq_factor)/(high_freq_factor − low_freq_factor)
///
/// (Transformers' `llama3`; Meta's release of Llama 3.1). Equal factors make a step. The defaults are those of
/// Llama 3.1; Llama 3.2 has a factor of 32.
struct Llama3 {
    double factor = 8;                                 ///< divisor of the low frequencies
    double low_freq_factor = 1, high_freq_factor = 4;  ///< rotations within the original length
    std::int64_t original_length = 8192;               ///< trained context length, tokens

    static constexpr std::string_view name = "llama3";
    static constexpr std::string_view about =
        "Keeps short wavelengths, slows long ones by factor and interpolates between the two.";
    using number = parameter<Llama3, double>;
    static constexpr auto parameters =
        std::tuple{number{"factor", &Llama3::factor}, number{"low_freq_factor", &Llama3::low_freq_factor},
                   number{"high_freq_factor", &Llama3::high_freq_factor},
                   parameter<Llama3, std::int64_t>{"original_length", &Llama3::original_length}};

    constexpr void validate(const Geometry& /*geometry*/ = {}) const {
        detail::expect_positive(name, "factor", factor);
        RW_EXPECTS(detail::is_finite(high_freq_factor) && detail::is_finite(low_freq_factor) && low_freq_factor > 0 &&
                       high_freq_factor >= low_freq_factor,
                   "llama3: high_freq_factor >= low_freq_factor > 0 must hold, got {} and {}", high_freq_factor,
                   low_freq_factor);
        RW_EXPECTS(original_length > 0, "llama3: original_length must be positive, got {}", original_length);
    }
    constexpr real operator()(const real& theta, std::int64_t /*pair*/, const Geometry& /*geometry*/) const {
        if (factor == 1) return theta;
        const real rotations = real(original_length) * theta / two_pi;  // L/λ
        const real low(low_freq_factor), high(high_freq_factor);
        if (rotations >= high) return theta;  // also for equal factors, which have no ramp
        const real slow = theta / real(factor);
        if (rotations < low) return slow;
        const real t = (rotations - low) / (high - low);
        return (real(1) - t) * slow + t * theta;
    }
    static constexpr Llama3 neutral() { return {.factor = 1}; }
    static constexpr Llama3 example() { return {}; }
};

}  // namespace ropewalk
