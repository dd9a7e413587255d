// Encodings: steps and magnitudes of every pair, from policies and a geometry.
#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>
#include <vector>

#include "ropewalk/core/bits.hpp"
#include "ropewalk/core/compiler.hpp"
#include "ropewalk/core/element.hpp"
#include "ropewalk/core/geometry.hpp"
#include "ropewalk/core/phase.hpp"
#include "ropewalk/core/positions.hpp"
#include "ropewalk/policy/compose.hpp"
#include "ropewalk/policy/expression.hpp"

namespace ropewalk {

/// The result of applying policies to a geometry, as kernels use it. Built by make_encoding().
struct Encoding {
    Geometry geometry;
    std::vector<std::uint64_t> steps;  ///< [pairs], 2^-64 turns per token
    std::vector<double> inv_freq;      ///< [pairs], radians per token
    double attention_factor = 1;       ///< multiplies cos and sin, for queries and keys alike

    /// [pairs] or empty: a query at position p is multiplied by 2^(−(p − centre) · rate_j · 2^-56), a key by the
    /// inverse.
    std::vector<std::uint64_t> magnitude_rates;
    std::int64_t centre = 0;  ///< position of magnitude 1

    double softmax_factor = 1;  ///< factor on the softmax scale (DeepSeek), which the caller's attention applies

    /// [position_axes, pairs] or empty: pair j rotates by the sum over axes a of position_a · axis_steps[a, j]. The
    /// value is steps[j] on the axis of the pair and 0 on the others.
    std::vector<std::uint64_t> axis_steps;

    /// Writes the positions of the tokens 0 … n−1 of a batch row. Empty if token i has position i.
    std::function<void(std::uint64_t row, std::span<fixed_position> numbers)> draw_positions;
    std::int64_t drawn_tokens = 0;  ///< the n of draw_positions; 0: the number of tokens of the call

    /// Identifies the part of a length-dependent schedule that is in force: keys cached in one stage do not fit
    /// another.
    std::uint64_t stage = 0;
    std::string expression;  ///< the policies, in the grammar of parse_policies()

    [[nodiscard]] std::int64_t pairs() const { return static_cast<std::int64_t>(steps.size()); }
    [[nodiscard]] bool has_axes() const { return !axis_steps.empty(); }
    [[nodiscard]] bool has_magnitude() const { return !magnitude_rates.empty(); }

    /// Returns the largest |p − centre| whose magnitude fits into the element type; 2^61 without magnitudes.
    [[nodiscard]] std::int64_t reach(element_type type) const {
        // log2 of 65504; f32 and bf16 stay normal on both sides of 1.
        return reach(type == element_type::f16 ? 15.9993 : 126.0);
    }
    /// Returns the largest |p − centre| whose magnitude lies within 2^±bits; 2^61 without magnitudes.
    [[nodiscard]] std::int64_t reach(double bits) const {
        std::uint64_t steepest = 0;
        for (const std::uint64_t rate : magnitude_rates) steepest = rate > steepest ? rate : steepest;
        // The limit of 2^61 keeps the sum of a centre and a reach within 64 bits.
        const double distance = steepest == 0 ? 0x1p61 : bits * 0x1p56 / static_cast<double>(steepest);
        return static_cast<std::int64_t>(distance < 0x1p61 ? distance : 0x1p61);
    }
};

namespace detail {

/// Returns whether a factor and its inverse are normal floats, as kernels require.
constexpr bool fits_float(const double& factor) {
    const double size = factor < 0 ? -factor : factor;
    return is_finite(factor) && size >= 0x1p-126 && size <= 0x1p126;
}

/// Applies policies in order and collects the result.
class encoding_builder {
public:
    explicit encoding_builder(const Geometry& geometry) {
        geometry.validate();
        encoding_.geometry = geometry;
        for (std::int64_t pair = 0; pair < geometry.pairs(); ++pair) theta_.push_back(geometry.theta(pair));
    }

    template <class P>
    void apply(const P& policy) {
        static_assert(Policy<P>, "a policy needs a name, a tuple of parameters and validate(geometry)");
        static_assert(AnyAxis<P>,
                      "a policy needs one of: operator()(theta, pair, geometry) for the frequency, "
                      "magnitude_rate(pair, geometry) "
                      "with centre() and stated_length(), or attention_factor(geometry), for the magnitude, "
                      "draw_positions(row, numbers) with stated_tokens(), or axis(pair, geometry), for the position, "
                      "softmax_factor(geometry) for the score");
        if constexpr (requires { policy.lacks_original_length(); }) {
            if (policy.lacks_original_length() && encoding_.geometry.original_length != 0) {
                P completed = policy;
                completed.original_length = encoding_.geometry.original_length;
                return apply_complete(completed);
            }
        }
        apply_complete(policy);
    }

    Encoding finish() && {
        for (const real& theta : theta_) {
            encoding_.steps.push_back(make_step(theta));
            encoding_.inv_freq.push_back(static_cast<double>(theta));
        }
        // Magnitudes and drawn positions need one position per token, which is enough if every pair uses the first
        // axis.
        if (!uses_axes_ && (encoding_.has_magnitude() || encoding_.draw_positions)) axes_.clear();
        if (!axes_.empty()) expand_axis_steps();
        if (encoding_.expression.empty()) encoding_.expression = Default::name;
        RW_EXPECTS(fits_float(encoding_.attention_factor),
                   "'{}' has an attention factor of {}: it and its inverse must fit into a normal float",
                   encoding_.expression, encoding_.attention_factor);
        return std::move(encoding_);
    }

private:
    template <class P>
    void apply_complete(const P& policy) {
        const Geometry& geometry = encoding_.geometry;
        policy.validate(geometry);
        if constexpr (FrequencyPolicy<P>) apply_frequencies(policy);
        if constexpr (MagnitudePolicy<P>) apply_magnitude(policy);
        if constexpr (AttentionFactorPolicy<P>) encoding_.attention_factor *= policy.attention_factor(geometry);
        if constexpr (SoftmaxFactorPolicy<P>) encoding_.softmax_factor *= policy.softmax_factor(geometry);
        if constexpr (PositionPolicy<P>) apply_positions(policy);
        if constexpr (PairAxisPolicy<P>) assign_axes(policy);
        if constexpr (StagePolicy<P>) encoding_.stage = encoding_.stage * 1000003U + policy.stage(geometry);
        encoding_.expression.append(encoding_.expression.empty() ? "" : "|").append(describe(policy));
    }

    /// Throws unless the policy is the first to set a property of the encoding.
    void expect_first(bool first, std::string_view policy, std::string_view property) const {
        RW_EXPECTS(first, "{} conflicts with '{}': both set {}", policy, encoding_.expression, property);
    }

    template <class P>
    void apply_frequencies(const P& policy) {
        for (std::int64_t pair = 0; pair < encoding_.geometry.pairs(); ++pair) {
            real& theta = theta_[static_cast<std::size_t>(pair)];
            theta = policy(theta, pair, encoding_.geometry);
            RW_EXPECTS(!theta.negative(), "{}: the frequency of pair {} must not be negative, got {}", P::name, pair,
                       static_cast<double>(theta));
        }
    }

    template <class P>
    void apply_magnitude(const P& policy) {
        expect_first(!encoding_.has_magnitude(), P::name, "the magnitude");
        bool any = false;
        for (std::int64_t pair = 0; pair < encoding_.geometry.pairs(); ++pair) {
            encoding_.magnitude_rates.push_back(
                real(policy.magnitude_rate(pair, encoding_.geometry)).scaled(56).rounded_modulo_2_64());
            any = any || encoding_.magnitude_rates.back() != 0;
        }
        if (!any) encoding_.magnitude_rates.clear();
        encoding_.centre = policy.centre();
        const std::int64_t reach = encoding_.reach(element_type::f32);
        RW_EXPECTS(policy.stated_length() - encoding_.centre <= reach,
                   "{}: length must not exceed {} tokens in f32 and bf16 with these parameters, got {}", P::name,
                   2 * reach, policy.stated_length());
    }

    template <class P>
    void apply_positions(const P& policy) {
        expect_first(!encoding_.draw_positions, P::name, "the positions");
        encoding_.draw_positions = [policy](std::uint64_t row, std::span<fixed_position> numbers) {
            policy.draw_positions(row, numbers);
        };
        encoding_.drawn_tokens =
            policy.stated_tokens() != 0 ? policy.stated_tokens() : encoding_.geometry.sequence_length;
    }

    template <class P>
    void assign_axes(const P& policy) {
        expect_first(!uses_axes_, P::name, "the axes of the pairs");
        std::vector<std::size_t> axes;
        for (std::int64_t pair = 0; pair < encoding_.geometry.pairs(); ++pair) {
            const std::int64_t axis = policy.axis(pair, encoding_.geometry);
            RW_EXPECTS(axis >= 0 && axis < static_cast<std::int64_t>(position_axes),
                       "{}: the axis of pair {} must lie in [0, {}), got {}", P::name, pair, position_axes, axis);
            axes.push_back(static_cast<std::size_t>(axis));
            uses_axes_ = uses_axes_ || axis != 0;
        }
        bool has_axes = uses_axes_;
        if constexpr (requires { policy.has_sections(); }) has_axes = has_axes || policy.has_sections();
        if (has_axes) axes_ = std::move(axes);
    }

    void expand_axis_steps() {
        RW_EXPECTS(!encoding_.has_magnitude() && !encoding_.draw_positions,
                   "'{}': several positions per token cannot be combined with magnitudes or drawn positions",
                   encoding_.expression);
        const std::size_t pairs = axes_.size();
        encoding_.axis_steps.assign(position_axes * pairs, 0);
        for (std::size_t pair = 0; pair < pairs; ++pair)
            encoding_.axis_steps[axes_[pair] * pairs + pair] = encoding_.steps[pair];
    }

    Encoding encoding_;
    std::vector<real> theta_;
    std::vector<std::size_t> axes_;  ///< [pairs], or empty if tokens have one position
    bool uses_axes_ = false;         ///< some pair uses another axis than the first
};

/// A run-time policy specification: an expression or a list of any_policy.
template <class T>
concept RuntimePolicies =
    std::convertible_to<const T&, std::string_view> || std::convertible_to<const T&, std::span<const any_policy>>;

template <class Variant>
Encoding encode(const Geometry& geometry, std::span<const Variant> policies) {
    encoding_builder builder(geometry);
    for (const Variant& policy : policies)
        std::visit([&builder](const auto& selected) { builder.apply(selected); }, policy);
    return std::move(builder).finish();
}

}  // namespace detail

/// Returns the encoding of a geometry by the policies, applied in the order given. A policy without its own
/// original_length uses that of the geometry. Steps are exact within 4 units of 2^-64 turn for frequencies up to one
/// turn per token. Throws ropewalk::error for an invalid geometry or parameter, and for two policies that set the same
/// property of an encoding.
template <class... Policies>
    requires(sizeof...(Policies) != 1 || !(detail::RuntimePolicies<Policies> || ...))
Encoding make_encoding(const Geometry& geometry, const Policies&... policies) {
    detail::encoding_builder builder(geometry);
    (builder.apply(policies), ...);
    return std::move(builder).finish();
}

/// The same for a composition: Linear{.factor = 4} | Truncated{.length = 4096}.
template <class... Policies>
Encoding make_encoding(const Geometry& geometry, const Composed<Policies...>& composed) {
    return std::apply([&](const auto&... policies) { return make_encoding(geometry, policies...); }, composed.policies);
}

/// The same for policies selected at run time. (Templates, so that only their callers compile every policy.)
template <class Variant = any_policy>
Encoding make_encoding(const Geometry& geometry, std::span<const std::type_identity_t<Variant>> policies) {
    return detail::encode<Variant>(geometry, policies);
}
template <class Variant = any_policy>
Encoding make_encoding(const Geometry& geometry, const std::vector<std::type_identity_t<Variant>>& policies) {
    return detail::encode<Variant>(geometry, policies);
}

/// The same for an expression: make_encoding(geometry, "linear:4|truncated:4096").
template <class Variant = any_policy>
Encoding make_encoding(const Geometry& geometry, std::string_view expression) {
    return detail::encode<Variant>(geometry, parse_policies<Variant>(expression));
}

}  // namespace ropewalk
