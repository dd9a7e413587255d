// LongRoPE: one searched factor per pair.
#pragma once

#include <array>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "ropewalk/policy/concepts.hpp"

namespace ropewalk {

/// θ'_j = θ_j / long_factor_j for sequences longer than original_length, else θ_j / short_factor_j (Ding et al.,
/// arXiv 2402.13753; Transformers' `longrope`, formerly `su`). An empty list means ones.
///
/// cos and sin are multiplied by `attention_factor`. Its default is √(1 + ln(factor)/ln(original_length)) for a factor
/// above 1, else 1; it does not depend on the list in use. Beyond the original length the stage is another: rerotate
/// keys that were cached before.
struct LongRope {
    std::vector<double> short_factor{}, long_factor{};  ///< [pairs] or empty, positive
    double factor = 1;                                  ///< extended over trained context length; positive
    std::int64_t original_length = 0;                   ///< trained context length, tokens; 0: that of the geometry
    std::optional<double> attention_factor_given{};

    static constexpr std::string_view name = "longrope";
    static constexpr std::string_view about =
        "Divides each frequency by its own factor, from a second list beyond the original length.";
    using list = parameter<LongRope, std::vector<double>>;
    static constexpr auto parameters =
        std::tuple{list{"short_factor", &LongRope::short_factor}, list{"long_factor", &LongRope::long_factor},
                   parameter<LongRope, double>{"factor", &LongRope::factor},
                   parameter<LongRope, std::int64_t>{"original_length", &LongRope::original_length},
                   parameter<LongRope, std::optional<double>>{"attention_factor", &LongRope::attention_factor_given}};

    void validate() const {
        detail::expect_given(
            !short_factor.empty() || !long_factor.empty() || !detail::same_bits(factor, 1) || attention_factor_given,
            name, "short_factor and long_factor", "lists with a number per pair",
            "longrope:[…],long_factor=[…],original_length=4096");
        for (const auto& [key, factors] : lists()) {
            for (std::size_t i = 0; i < factors->size(); ++i) {
                RW_EXPECTS(detail::is_finite((*factors)[i]) && (*factors)[i] > 0,
                           "longrope: {} must be positive numbers, got {} at index {}", key, (*factors)[i], i);
            }
        }
        detail::expect_positive(name, "factor", factor);
        RW_EXPECTS(original_length >= 0 && (original_length != 1 || !needs_original_length()),
                   "longrope: original_length must be above 1, got {}", original_length);
        if (attention_factor_given) detail::expect_positive(name, "attention_factor", *attention_factor_given);
    }
    void validate(const Geometry& geometry) const {
        validate();
        for (const auto& [key, factors] : lists()) {
            RW_EXPECTS(factors->empty() || static_cast<std::int64_t>(factors->size()) == geometry.pairs(),
                       "longrope: {} has {} entries for {} pairs", key, factors->size(), geometry.pairs());
        }
        RW_EXPECTS(!lacks_original_length(),
                   "longrope needs original_length, the trained context length: add original_length=4096");
    }
    [[nodiscard]] bool lacks_original_length() const { return original_length == 0 && needs_original_length(); }
    real operator()(const real& theta, std::int64_t pair, const Geometry& geometry) const {
        const std::vector<double>& factors = stage(geometry) != 0 ? long_factor : short_factor;
        return factors.empty() ? theta : theta / real(factors[static_cast<std::size_t>(pair)]);
    }
    [[nodiscard]] double attention_factor(const Geometry& /*geometry*/) const {
        if (attention_factor_given) return *attention_factor_given;
        if (factor <= 1) return 1;
        return std::sqrt(1 + static_cast<double>(log2(real(factor)) / log2(real(original_length))));
    }
    /// Returns 1 beyond the original length, else 0.
    [[nodiscard]] std::uint64_t stage(const Geometry& geometry) const {
        return geometry.sequence_length > original_length && original_length > 0 ? 1 : 0;
    }
    static LongRope neutral() { return {.attention_factor_given = 1}; }
    static LongRope example() { return {.factor = 32, .original_length = 4096}; }
    /// With lists that grow along the pairs, as in published models.
    static LongRope example(const Geometry& geometry) {
        LongRope policy = example();
        for (std::int64_t pair = 0; pair < geometry.pairs(); ++pair) {
            const double position = static_cast<double>(pair + 1) / static_cast<double>(geometry.pairs());
            policy.short_factor.push_back(1 + position / 8);
            policy.long_factor.push_back(1 + 63 * position * position);
        }
        return policy;
    }

private:
    [[nodiscard]] bool needs_original_length() const {
        return !short_factor.empty() || !long_factor.empty() || (factor > 1 && !attention_factor_given);
    }
    [[nodiscard]] std::array<std::pair<const char*, const std::vector<double>*>, 2> lists() const {
        return {std::pair{"short_factor", &short_factor}, {"long_factor", &long_factor}};
    }
};

}  // namespace ropewalk
