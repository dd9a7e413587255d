// Dynamic NTK scaling, which follows the sequence length.
#pragma once

#include "ropewalk/policy/describe.hpp"
#include "ropewalk/policy/ntk.hpp"

namespace ropewalk {

/// NTK scaling by α = factor · n/L − (factor − 1) with L = original_length and n = max(sequence length, L)
/// (Transformers' `dynamic`; arXiv 2309.00071, §3.3). Up to L tokens the frequencies are plain. Beyond L every length
/// has its own frequencies and its own stage: rerotate keys that were cached at another length.
struct DynamicNtk {
    double factor = 0;                 ///< required: growth of α per multiple of L; positive
    std::int64_t original_length = 0;  ///< L, trained context length, tokens; 0: that of the geometry

    static constexpr std::string_view name = "dynamic";
    static constexpr std::string_view about = "NTK scaling that grows as the sequence exceeds the original length.";
    static constexpr auto parameters =
        std::tuple{parameter<DynamicNtk, double>{"factor", &DynamicNtk::factor, true},
                   parameter<DynamicNtk, std::int64_t>{"original_length", &DynamicNtk::original_length}};

    constexpr void validate() const {
        detail::expect_given(!detail::same_bits(factor, 0), name, "factor", "a positive number",
                             "dynamic:4,original_length=4096");
        detail::expect_positive(name, "factor", factor);
        RW_EXPECTS(original_length >= 0, "dynamic: original_length must be positive, got {}", original_length);
    }
    constexpr void validate(const Geometry& /*geometry*/) const {
        validate();
        if (lacks_original_length()) detail::fail_without_original_length(*this);
    }
    [[nodiscard]] constexpr bool lacks_original_length() const { return original_length == 0; }
    [[nodiscard]] constexpr real alpha(const Geometry& geometry) const {
        if (geometry.sequence_length <= original_length) return real(1);
        // The same without a difference, in which a large factor would cancel.
        return real(1) + real(factor) * (real(geometry.sequence_length - original_length) / real(original_length));
    }
    constexpr real operator()(const real& theta, std::int64_t pair, const Geometry& geometry) const {
        return detail::with_ntk_base(theta, alpha(geometry), pair, geometry);
    }
    /// Returns the number of tokens beyond the original length.
    [[nodiscard]] constexpr std::uint64_t stage(const Geometry& geometry) const {
        const std::int64_t beyond = geometry.sequence_length - original_length;
        return beyond > 0 ? static_cast<std::uint64_t>(beyond) : 0;
    }
    /// An original length that no sequence exceeds.
    static constexpr DynamicNtk neutral() { return {.factor = 1, .original_length = std::int64_t{1} << 53}; }
    static constexpr DynamicNtk example() { return {.factor = 4, .original_length = 4096}; }
};

}  // namespace ropewalk
