// NTK scaling that follows the sequence length.
#pragma once

#include "ropewalk/policy/ntk.hpp"

namespace ropewalk {

/// NTK scaling by α = factor · n/L − (factor − 1), n = max(sequence length, original_length), L = original_length
/// (Transformers' `dynamic`, arXiv 2309.00071, §3.3). Up to L tokens nothing changes; beyond it every length has
/// frequencies, and so an stage, of its own: rerotate keys that were cached at another length.
struct DynamicNtk {
    double factor = 1;
    std::int64_t original_length = 0;  ///< L, tokens; `max_position_embeddings` of the configuration

    static constexpr std::string_view name = "dynamic";
    static constexpr std::string_view about =
        "NTK scaling by as much as the sequence has outgrown the original length.";
    static constexpr auto parameters =
        std::tuple{parameter<DynamicNtk, double>{"factor", &DynamicNtk::factor},
                   parameter<DynamicNtk, std::int64_t>{"original_length", &DynamicNtk::original_length}};

    constexpr void validate(const Geometry& /*geometry*/) const {
        RW_EXPECTS(detail::is_finite(factor) && factor > 0, "dynamic: factor must be a positive number, got {}",
                   factor);
        RW_EXPECTS(original_length > 0, "dynamic: original_length must be positive, got {}", original_length);
    }
    [[nodiscard]] constexpr real alpha(const Geometry& geometry) const {
        if (geometry.sequence_length <= original_length) return real(1);
        return real(factor) * (real(geometry.sequence_length) / real(original_length)) - (real(factor) - real(1));
    }
    constexpr real operator()(const real& theta, std::int64_t pair, const Geometry& geometry) const {
        return detail::with_ntk_base(theta, alpha(geometry), pair, geometry);
    }
    /// Tokens beyond the original length.
    [[nodiscard]] constexpr std::uint64_t stage(const Geometry& geometry) const {
        const std::int64_t beyond = geometry.sequence_length - original_length;
        return beyond > 0 ? static_cast<std::uint64_t>(beyond) : 0;
    }
    static constexpr DynamicNtk neutral() { return {.factor = 1, .original_length = std::int64_t{1} << 53}; }
    static constexpr DynamicNtk example() { return {.factor = 4, .original_length = 4096}; }
};

}  // namespace ropewalk
