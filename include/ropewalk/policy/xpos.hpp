// xPos: a magnitude that decays with the distance.
#pragma once

#include "ropewalk/policy/concepts.hpp"

namespace ropewalk {

/// Pair j of a query at position p is multiplied by ζ_j^((p − c)/scale_base), of a key by its inverse, with
/// ζ_j = (2j/d + γ)/(1 + γ) (Sun et al., arXiv 2212.10554, §3.2; torchscale's `xpos_relative_position.py`). A score
/// then holds ζ_j^((p_q − p_k)/scale_base), whatever the centre c is. The paper pairs interleaved elements.
///
/// The centre is half of `length` and never moves, so a cached key stays valid while the sequence grows. Without a
/// length it is 0. Kernels refuse positions whose factor the element type cannot hold: |p − c| may reach
/// 4532 in f16 and 35694 in f32 and bf16 for a scale_base of 512, in proportion to it.
struct XPos {
    double scale_base = 512;  ///< tokens after which the magnitude has changed by ζ_j; Giraffe went from 8192 to 128
    double gamma = 0.4;
    std::int64_t length = 0;  ///< the longest sequence, tokens, which is refused at once when f32 cannot hold it

    static constexpr std::string_view name = "xpos";
    static constexpr std::string_view about =
        "Stretches queries and shrinks keys as positions grow, so that scores fade with the distance.";
    static constexpr auto parameters = std::tuple{parameter<XPos, double>{"scale_base", &XPos::scale_base},
                                                  parameter<XPos, double>{"gamma", &XPos::gamma},
                                                  parameter<XPos, std::int64_t>{"length", &XPos::length}};

    constexpr void validate(const Geometry& geometry) const {
        RW_EXPECTS(!detail::is_nan(scale_base) && scale_base > 0, "xpos: scale_base must be positive, got {}",
                   scale_base);
        RW_EXPECTS(detail::is_finite(gamma) && gamma > 0, "xpos: gamma must be a positive number, got {}", gamma);
        RW_EXPECTS(length >= 0, "xpos: length must not be negative, got {}", length);
        // Fixed point holds 2^-1 a token, which is a scale_base of 3.6 for the default gamma.
        RW_EXPECTS(static_cast<double>(magnitude_rate(0, geometry)) <= 0.5,
                   "xpos: scale_base {} is too small for gamma {}", scale_base, gamma);
    }
    /// −log2(ζ_j) / scale_base, a token.
    constexpr real magnitude_rate(std::int64_t pair, const Geometry& geometry) const {
        if (!detail::is_finite(scale_base)) return {};
        const real g(gamma);
        const real zeta = (real(2 * pair) / real(geometry.width()) + g) / (real(1) + g);
        return -(log2(zeta) / real(scale_base));
    }
    [[nodiscard]] constexpr std::int64_t centre() const { return length / 2; }
    [[nodiscard]] constexpr std::int64_t stated_length() const { return length; }
    static constexpr XPos neutral() { return {.scale_base = std::numeric_limits<double>::infinity()}; }
    static constexpr XPos example() { return {.length = 8192}; }
};

}  // namespace ropewalk
