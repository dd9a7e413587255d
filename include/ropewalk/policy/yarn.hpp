// YaRN: interpolation by parts and an attention factor.
#pragma once

#include <optional>

#include "ropewalk/policy/concepts.hpp"
#include "ropewalk/policy/describe.hpp"

namespace ropewalk {

/// θ'_j = θ_j/factor · r_j + θ_j · (1 − r_j) with the ramp r_j = clamp((j − low)/(high − low), 0, 1). Pairs with more
/// than beta_fast rotations within the original length stay, pairs with fewer than beta_slow are interpolated (Peng et
/// al., arXiv 2309.00071, §3.2; Transformers' `yarn`).
///
/// cos and sin are multiplied by `attention_factor`. Its default is 0.1·ln(factor) + 1 (eq. 22), or, with both mscales,
/// m(mscale)/m(mscale_all_dim) with m(a) = 0.1·a·ln(factor) + 1 (DeepSeek). mscale_all_dim also multiplies the softmax
/// scale by m(mscale_all_dim)².
struct Yarn {
    double factor = 0;                 ///< required: extended over trained context length; positive
    std::int64_t original_length = 0;  ///< trained context length, tokens; 0: that of the geometry
    double beta_fast = 32;             ///< rotations within the original length
    double beta_slow = 1;
    bool truncate = true;  ///< round the bounds of the ramp outwards to integers (false in gpt-oss)
    std::optional<double> attention_factor_given{};
    std::optional<double> mscale{}, mscale_all_dim{};

    static constexpr std::string_view name = "yarn";
    static constexpr std::string_view about =
        "Keeps high frequencies, slows low ones by factor and sharpens attention.";
    using number = parameter<Yarn, double>;
    using maybe = parameter<Yarn, std::optional<double>>;
    static constexpr auto parameters =
        std::tuple{number{"factor", &Yarn::factor, true},
                   parameter<Yarn, std::int64_t>{"original_length", &Yarn::original_length},
                   number{"beta_fast", &Yarn::beta_fast},
                   number{"beta_slow", &Yarn::beta_slow},
                   parameter<Yarn, bool>{"truncate", &Yarn::truncate},
                   maybe{"attention_factor", &Yarn::attention_factor_given},
                   maybe{"mscale", &Yarn::mscale},
                   maybe{"mscale_all_dim", &Yarn::mscale_all_dim}};

    constexpr void validate() const {
        detail::expect_given(!detail::same_bits(factor, 0), name, "factor", "a positive number",
                             "yarn:8,original_length=4096");
        detail::expect_positive(name, "factor", factor);
        RW_EXPECTS(original_length >= 0, "yarn: original_length must be positive, got {}", original_length);
        RW_EXPECTS(
            detail::is_finite(beta_fast) && detail::is_finite(beta_slow) && beta_slow > 0 && beta_fast >= beta_slow,
            "yarn: beta_fast >= beta_slow > 0 must hold, got {} and {}", beta_fast, beta_slow);
        if (attention_factor_given) detail::expect_positive(name, "attention_factor", *attention_factor_given);
        for (const auto& [key, value] : {std::pair{"mscale", mscale}, std::pair{"mscale_all_dim", mscale_all_dim}}) {
            RW_EXPECTS(!value || (detail::is_finite(*value) && *value >= 0), "yarn: {} must not be negative, got {}",
                       key, value.value_or(0));
        }
    }
    constexpr void validate(const Geometry& /*geometry*/) const {
        validate();
        if (lacks_original_length()) detail::fail_without_original_length(*this);
    }
    [[nodiscard]] constexpr bool lacks_original_length() const { return original_length == 0 && factor != 1; }
    constexpr real operator()(const real& theta, std::int64_t pair, const Geometry& geometry) const {
        if (factor == 1) return theta;
        const real start = low(geometry), end = high(geometry);
        const real width = start == end ? real(0.001) : end - start;
        const real ramp = clamp((real(pair) - start) / width, real(0), real(1));
        return theta / real(factor) * ramp + theta * (real(1) - ramp);
    }
    [[nodiscard]] constexpr double attention_factor(const Geometry& /*geometry*/) const {
        if (attention_factor_given) return *attention_factor_given;
        // As in Transformers, mscales take effect only if both are nonzero.
        if (mscale.value_or(0) != 0 && mscale_all_dim.value_or(0) != 0) return m(*mscale) / m(*mscale_all_dim);
        return m(1);
    }
    /// Returns DeepSeek's factor on the softmax scale.
    [[nodiscard]] constexpr double softmax_factor(const Geometry& /*geometry*/) const {
        return m(mscale_all_dim.value_or(0)) * m(mscale_all_dim.value_or(0));
    }
    static constexpr Yarn neutral() { return {.factor = 1}; }
    static constexpr Yarn example() { return {.factor = 16, .original_length = 4096}; }

    /// Returns the fractional index of the pair with `rotations` rotations within the original length.
    [[nodiscard]] RW_COLD constexpr real pair_of(double rotations, const Geometry& geometry) const {
        return real(geometry.width()) * log2(real(original_length) / (real(rotations) * two_pi)) /
               (log2(real(geometry.base)).scaled(1));
    }
    /// Returns the start of the ramp: the last pair that keeps its frequency.
    [[nodiscard]] RW_COLD constexpr real low(const Geometry& geometry) const {
        const real exact = pair_of(beta_fast, geometry);
        return max(truncate ? floor(exact) : exact, real(0));
    }
    /// Returns the end of the ramp: the first pair that is fully interpolated.
    [[nodiscard]] RW_COLD constexpr real high(const Geometry& geometry) const {
        const real exact = pair_of(beta_slow, geometry);
        return min(truncate ? -floor(-exact) : exact, real(geometry.width() - 1));
    }

private:
    [[nodiscard]] RW_COLD constexpr double m(double scale) const {
        return factor <= 1 ? 1 : static_cast<double>(real(0.1) * real(scale) * log(real(factor)) + real(1));
    }
};

}  // namespace ropewalk
