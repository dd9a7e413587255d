// YaRN: interpolation by parts, and sharper attention.
#pragma once

#include <optional>

#include "ropewalk/policy/concepts.hpp"

namespace ropewalk {

/// θ'_j = θ_j/factor · r_j + θ_j · (1 − r_j), r_j = clamp((j − low)/(high − low), 0, 1): pairs that turn more than
/// beta_fast times within the original length stay, those that turn less than beta_slow times are interpolated (Peng et
/// al., arXiv 2309.00071, §3.2; Transformers' `yarn`). cos and sin are multiplied by `attention_factor`, which is
/// 0.1·ln(factor) + 1 unless given (eq. 22), or m(mscale)/m(mscale_all_dim) with m(a) = 0.1·a·ln(factor) + 1
/// (DeepSeek); their softmax is multiplied by m(mscale_all_dim)² besides.
struct Yarn {
    double factor = 1;                 ///< how many times longer the context becomes
    std::int64_t original_length = 0;  ///< tokens of the training before
    double beta_fast = 32;             ///< turns within the original length
    double beta_slow = 1;
    bool truncate = true;  ///< round the bounds of the ramp outwards to whole pairs; gpt-oss does not
    std::optional<double> attention_factor_given{};
    std::optional<double> mscale{}, mscale_all_dim{};

    static constexpr std::string_view name = "yarn";
    static constexpr std::string_view about =
        "Keeps pairs that turn often within the original length, slows the others by factor and sharpens attention.";
    using number = parameter<Yarn, double>;
    using maybe = parameter<Yarn, std::optional<double>>;
    static constexpr auto parameters =
        std::tuple{number{"factor", &Yarn::factor},
                   parameter<Yarn, std::int64_t>{"original_length", &Yarn::original_length},
                   number{"beta_fast", &Yarn::beta_fast},
                   number{"beta_slow", &Yarn::beta_slow},
                   parameter<Yarn, bool>{"truncate", &Yarn::truncate},
                   maybe{"attention_factor", &Yarn::attention_factor_given},
                   maybe{"mscale", &Yarn::mscale},
                   maybe{"mscale_all_dim", &Yarn::mscale_all_dim}};

    constexpr void validate(const Geometry& /*geometry*/) const {
        RW_EXPECTS(detail::is_finite(factor) && factor > 0, "yarn: factor must be a positive number, got {}", factor);
        RW_EXPECTS(original_length > 0 || (factor == 1 && original_length == 0),
                   "yarn: original_length must be positive, got {}", original_length);
        RW_EXPECTS(
            detail::is_finite(beta_fast) && detail::is_finite(beta_slow) && beta_slow > 0 && beta_fast >= beta_slow,
            "yarn: needs beta_fast >= beta_slow > 0, got {} and {}", beta_fast, beta_slow);
        RW_EXPECTS(
            !attention_factor_given || (detail::is_finite(*attention_factor_given) && *attention_factor_given > 0),
            "yarn: attention_factor must be a positive number, got {}", attention_factor_given.value_or(0));
        for (const auto& [key, value] : {std::pair{"mscale", mscale}, std::pair{"mscale_all_dim", mscale_all_dim}}) {
            RW_EXPECTS(!value || (detail::is_finite(*value) && *value >= 0), "yarn: {} must not be negative, got {}",
                       key, value.value_or(0));
        }
    }
    constexpr real operator()(const real& theta, std::int64_t pair, const Geometry& geometry) const {
        if (factor == 1) return theta;
        const real start = low(geometry), end = high(geometry);
        const real width = start == end ? real(0.001) : end - start;
        const real ramp = clamp((real(pair) - start) / width, real(0), real(1));
        return theta / real(factor) * ramp + theta * (real(1) - ramp);
    }
    [[nodiscard]] constexpr double attention_factor(const Geometry& /*geometry*/) const {
        if (attention_factor_given) return *attention_factor_given;
        // Without both, Transformers takes neither; a zero counts as absent there.
        if (mscale.value_or(0) != 0 && mscale_all_dim.value_or(0) != 0) return m(*mscale) / m(*mscale_all_dim);
        return m(1);
    }
    /// DeepSeek's second factor, on the softmax scale.
    [[nodiscard]] constexpr double softmax_factor(const Geometry& /*geometry*/) const {
        return m(mscale_all_dim.value_or(0)) * m(mscale_all_dim.value_or(0));
    }
    static constexpr Yarn neutral() { return {.factor = 1}; }
    static constexpr Yarn example() { return {.factor = 16, .original_length = 4096}; }

    /// The pair that turns `turns` times within the original length, a fraction of pairs allowed.
    [[nodiscard]] constexpr real pair_of(double turns, const Geometry& geometry) const {
        return real(geometry.width()) * log2(real(original_length) / (real(turns) * two_pi)) /
               (log2(real(geometry.base)).scaled(1));
    }
    /// The last pair that keeps its frequency, and the first that is interpolated in full.
    [[nodiscard]] constexpr real low(const Geometry& geometry) const {
        const real exact = pair_of(beta_fast, geometry);
        return max(truncate ? floor(exact) : exact, real(0));
    }
    [[nodiscard]] constexpr real high(const Geometry& geometry) const {
        const real exact = pair_of(beta_slow, geometry);
        return min(truncate ? -floor(-exact) : exact, real(geometry.width() - 1));
    }

private:
    [[nodiscard]] constexpr double m(double scale) const {
        return factor <= 1 ? 1 : static_cast<double>(real(0.1) * real(scale) * log(real(factor)) + real(1));
    }
};

}  // namespace ropewalk
