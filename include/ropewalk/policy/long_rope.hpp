// LongRoPE: a searched factor for every pair.
#pragma once

#include <cmath>
#include <optional>
#include <vector>

#include "ropewalk/policy/concepts.hpp"

namespace ropewalk {

/// θ'_j = θ_j / long_factor_j where the sequence is longer than original_length, else θ_j / short_factor_j (Ding et
/// al., arXiv 2402.13753; Transformers' `longrope`, once `su`). cos and sin are multiplied by `attention_factor`, which
/// is √(1 + ln(factor)/ln(original_length)) for a factor above 1 unless given, whichever list is in use. An empty list
/// stands for ones. Crossing the original length is another stage: rerotate keys that were cached before.
struct LongRope {
    std::vector<double> short_factor{}, long_factor{};  ///< [pairs] or empty, positive
    double factor = 1;                                  ///< how many times longer the context becomes
    std::int64_t original_length = 0;                   ///< tokens
    std::optional<double> attention_factor_given{};

    static constexpr std::string_view name = "longrope";
    static constexpr std::string_view about =
        "Divides the frequency of each pair by its own factor, from another list beyond the original length.";
    using list = parameter<LongRope, std::vector<double>>;
    static constexpr auto parameters =
        std::tuple{list{"short_factor", &LongRope::short_factor}, list{"long_factor", &LongRope::long_factor},
                   parameter<LongRope, double>{"factor", &LongRope::factor},
                   parameter<LongRope, std::int64_t>{"original_length", &LongRope::original_length},
                   parameter<LongRope, std::optional<double>>{"attention_factor", &LongRope::attention_factor_given}};

    void validate(const Geometry& geometry) const {
        check("short_factor", short_factor, geometry.pairs());
        check("long_factor", long_factor, geometry.pairs());
        RW_EXPECTS(detail::is_finite(factor) && factor > 0, "longrope: factor must be a positive number, got {}",
                   factor);
        const bool needed = !short_factor.empty() || !long_factor.empty() || (factor > 1 && !attention_factor_given);
        RW_EXPECTS(original_length > 1 || (!needed && original_length >= 0),
                   "longrope: original_length must be above 1, got {}", original_length);
        RW_EXPECTS(
            !attention_factor_given || (detail::is_finite(*attention_factor_given) && *attention_factor_given > 0),
            "longrope: attention_factor must be a positive number, got {}", attention_factor_given.value_or(0));
    }
    real operator()(const real& theta, std::int64_t pair, const Geometry& geometry) const {
        const std::vector<double>& factors = stage(geometry) != 0 ? long_factor : short_factor;
        return factors.empty() ? theta : theta / real(factors[static_cast<std::size_t>(pair)]);
    }
    [[nodiscard]] double attention_factor(const Geometry& /*geometry*/) const {
        if (attention_factor_given) return *attention_factor_given;
        if (factor <= 1) return 1;
        return std::sqrt(1 + static_cast<double>(log2(real(factor)) / log2(real(original_length))));
    }
    /// 1 beyond the original length.
    [[nodiscard]] std::uint64_t stage(const Geometry& geometry) const {
        return geometry.sequence_length > original_length && original_length > 0 ? 1 : 0;
    }
    static LongRope neutral() { return {}; }
    static LongRope example() { return {.factor = 32, .original_length = 4096}; }
    /// With lists, which grow along the pairs as those of models do.
    static LongRope example(const Geometry& geometry) {
        LongRope policy = example();
        for (std::int64_t pair = 0; pair < geometry.pairs(); ++pair) {
            const double along = static_cast<double>(pair + 1) / static_cast<double>(geometry.pairs());
            policy.short_factor.push_back(1 + along / 8);
            policy.long_factor.push_back(1 + 63 * along * along);
        }
        return policy;
    }

private:
    static void check(const char* key, const std::vector<double>& factors, std::int64_t pairs) {
        RW_EXPECTS(factors.empty() || static_cast<std::int64_t>(factors.size()) == pairs,
                   "longrope: {} has {} entries for {} pairs", key, factors.size(), pairs);
        for (std::size_t i = 0; i < factors.size(); ++i) {
            RW_EXPECTS(detail::is_finite(factors[i]) && factors[i] > 0,
                       "longrope: {} must hold positive numbers, got {} at {}", key, factors[i], i);
        }
    }
};

}  // namespace ropewalk
