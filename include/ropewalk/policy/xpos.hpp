// xPos: magnitudes that make scores decay with the distance.
#pragma once

#include "ropewalk/policy/concepts.hpp"

namespace ropewalk {

/// Pair j of a query at position p is multiplied by ζ_j^((p − c)/scale_base), of a key by its inverse, with
/// ζ_j = (2j/d + γ)/(1 + γ) (Sun et al., arXiv 2212.10554, §3.2; torchscale's `xpos_relative_position.py`). A score
/// then contains ζ_j^((p_q − p_k)/scale_base), independent of the centre c. The paper uses the interleaved layout.
///
/// The centre is `length`/2, or 0 without a length. It is constant, so a cached key stays valid while the sequence
/// grows. Kernels reject positions whose factor exceeds the element type. For a scale_base of 512, |p − c| may reach
/// 4532 in f16 and 35694 in f32 and bf16; the limit is proportional to scale_base.
struct XPos {
    double scale_base = 512;  ///< tokens per factor of ζ_j; Giraffe used 8192 to 128
    double gamma = 0.4;       ///< γ, positive
    std::int64_t length = 0;  ///< longest sequence, tokens; make_encoding() throws if it exceeds f32

    static constexpr std::string_view name = "xpos";
    static constexpr std::string_view about =
        "Scales queries up and keys down along the sequence, so that scores decay with the distance.";
    static constexpr auto parameters = std::tuple{parameter<XPos, double>{"scale_base", &XPos::scale_base},
                                                  parameter<XPos, double>{"gamma", &XPos::gamma},
                                                  parameter<XPos, std::int64_t>{"length", &XPos::length}};

    constexpr void validate(const Geometry& geometry = {}) const {
        RW_EXPECTS(!detail::is_nan(scale_base) && scale_base > 0, "xpos: scale_base must be positive, got {}",
                   scale_base);
        detail::expect_positive(name, "gamma", gamma);
        RW_EXPECTS(length >= 0, "xpos: length must not be negative, got {}", length);
        // Kernels hold rates in fixed point, up to 1/2 per token, a scale_base of 3.6 for the default gamma.
        RW_EXPECTS(static_cast<double>(magnitude_rate(0, geometry)) <= 0.5,
                   "xpos: scale_base {} is too small for gamma {}", scale_base, gamma);
    }
    /// Returns −log2(ζ_j) / scale_base, per token.
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
