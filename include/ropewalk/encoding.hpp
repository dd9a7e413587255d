// Policies + geometry → steps and magnitudes: all that a kernel needs.
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
#include "ropewalk/core/element.hpp"
#include "ropewalk/core/geometry.hpp"
#include "ropewalk/core/phase.hpp"
#include "ropewalk/core/positions.hpp"
#include "ropewalk/policy/compose.hpp"
#include "ropewalk/policy/expression.hpp"

namespace ropewalk {

/// What the policies made of one geometry. Make it with make_encoding().
struct Encoding {
    Geometry geometry;
    std::vector<std::uint64_t> steps;  ///< [pairs], 2^-64 turns a token
    std::vector<double> inv_freq;      ///< [pairs], radians a token
    double attention_factor = 1;       ///< multiplies cos and sin, for queries and keys alike

    /// [pairs] or empty: a query at position p is multiplied by 2^(−(p − centre) · rate_j · 2^-56), a key by the
    /// inverse.
    std::vector<std::uint64_t> magnitude_rates;
    std::int64_t centre = 0;

    double softmax_factor = 1;  ///< for whoever computes attention: multiplies the softmax scale (DeepSeek)

    /// [position_axes, pairs] or empty: pair j turns by the sum over the axes of position_a · axis_steps[a, j], where
    /// one of them is its step and the others are 0.
    std::vector<std::uint64_t> axis_steps;

    /// Empty where the token at index i is at position i; else fills in the positions of the indices 0 … n−1 of a row.
    std::function<void(std::uint64_t row, std::span<fixed_position> numbers)> draw_positions;
    std::int64_t drawn_tokens = 0;  ///< the n of `place`; 0: as many as a call has

    /// Changes when the sequence length moves a policy to other frequencies: keys cached in one stage do not fit
    /// another.
    std::uint64_t stage = 0;
    std::string expression;  ///< the policies, as parse_policies() reads them

    [[nodiscard]] std::int64_t pairs() const { return static_cast<std::int64_t>(steps.size()); }
    [[nodiscard]] bool has_axes() const { return !axis_steps.empty(); }
    [[nodiscard]] bool has_magnitude() const { return !magnitude_rates.empty(); }

    /// The largest |p − centre| whose magnitude the element type holds; 2^61 where nothing decays.
    [[nodiscard]] std::int64_t reach(element_type type) const {
        // log2 of 65504, and what leaves f32 and bf16 normal on both sides of 1.
        return reach(type == element_type::f16 ? 15.9993 : 126.0);
    }
    /// The largest |p − centre| whose magnitude lies within 2^±bits.
    [[nodiscard]] std::int64_t reach(double bits) const {
        std::uint64_t steepest = 0;
        for (const std::uint64_t one : magnitude_rates) steepest = one > steepest ? one : steepest;
        // Beyond 2^61 a centre and a reach would leave 64 bits together.
        const double distance = steepest == 0 ? 0x1p61 : bits * 0x1p56 / static_cast<double>(steepest);
        return static_cast<std::int64_t>(distance < 0x1p61 ? distance : 0x1p61);
    }
};

namespace detail {

/// Whether kernels can multiply by a factor and by its inverse: both are normal floats.
constexpr bool fits_float(const double& factor) {
    const double size = factor < 0 ? -factor : factor;
    return is_finite(factor) && size >= 0x1p-126 && size <= 0x1p126;
}

/// Applies policies one after the other.
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
        static_assert(
            AnyAxis<P>,
            "a policy needs one of: operator()(theta, pair, geometry) for the frequency, magnitude_rate(pair, "
            "geometry) "
            "with centre() and stated_length(), or attention_factor(geometry), for the magnitude, draw_positions(row, "
            "numbers) "
            "with stated_tokens(), or axis(pair, geometry), for the position, softmax_factor(geometry) for the score");
        const Geometry& geometry = encoding_.geometry;
        policy.validate(geometry);
        if constexpr (FrequencyPolicy<P>) turn(policy);
        if constexpr (MagnitudePolicy<P>) stretch(policy);
        if constexpr (AttentionFactorPolicy<P>) encoding_.attention_factor *= policy.attention_factor(geometry);
        if constexpr (SoftmaxFactorPolicy<P>) encoding_.softmax_factor *= policy.softmax_factor(geometry);
        if constexpr (PositionPolicy<P>) put(policy);
        if constexpr (PairAxisPolicy<P>) part(policy);
        if constexpr (StagePolicy<P>) encoding_.stage = encoding_.stage * 1000003U + policy.stage(geometry);
        encoding_.expression.append(encoding_.expression.empty() ? "" : "|").append(describe(policy));
    }

    Encoding finish() && {
        for (const real& theta : theta_) {
            encoding_.steps.push_back(make_step(theta));
            encoding_.inv_freq.push_back(static_cast<double>(theta));
        }
        // Magnitudes and drawn positions go with one position a token, which is enough where every pair follows it.
        if (!several_ && (encoding_.has_magnitude() || encoding_.draw_positions)) axes_.clear();
        if (!axes_.empty()) spread_steps();
        if (encoding_.expression.empty()) encoding_.expression = Default::name;
        RW_EXPECTS(fits_float(encoding_.attention_factor),
                   "'{}' has an attention factor of {}, which a float does not hold, or not its inverse",
                   encoding_.expression, encoding_.attention_factor);
        return std::move(encoding_);
    }

private:
    template <class P>
    void turn(const P& policy) {
        for (std::int64_t pair = 0; pair < encoding_.geometry.pairs(); ++pair) {
            real& theta = theta_[static_cast<std::size_t>(pair)];
            theta = policy(theta, pair, encoding_.geometry);
            RW_EXPECTS(!theta.negative(), "{} makes the frequency of pair {} negative: {}", P::name, pair,
                       static_cast<double>(theta));
        }
    }

    template <class P>
    void stretch(const P& policy) {
        RW_EXPECTS(!encoding_.has_magnitude(), "{} comes second: '{}' already sets the magnitude", P::name,
                   encoding_.expression);
        bool any = false;
        for (std::int64_t pair = 0; pair < encoding_.geometry.pairs(); ++pair) {
            encoding_.magnitude_rates.push_back(
                real(policy.magnitude_rate(pair, encoding_.geometry)).scaled(56).rounded_modulo_2_64());
            any = any || encoding_.magnitude_rates.back() != 0;
        }
        if (!any) encoding_.magnitude_rates.clear();
        encoding_.centre = policy.centre();
        const std::int64_t reach = encoding_.reach(element_type::f32);
        RW_EXPECTS(
            policy.stated_length() - encoding_.centre <= reach,
            "{}: a length of {} tokens does not fit into f32 or bf16, which hold {} tokens with these parameters",
            P::name, policy.stated_length(), 2 * reach);
    }

    template <class P>
    void put(const P& policy) {
        RW_EXPECTS(!encoding_.draw_positions, "{} comes second: '{}' already sets the positions", P::name,
                   encoding_.expression);
        encoding_.draw_positions = [policy](std::uint64_t row, std::span<fixed_position> numbers) {
            policy.draw_positions(row, numbers);
        };
        encoding_.drawn_tokens =
            policy.stated_tokens() != 0 ? policy.stated_tokens() : encoding_.geometry.sequence_length;
    }

    template <class P>
    void part(const P& policy) {
        RW_EXPECTS(!several_, "{} comes second: '{}' already says which position a pair follows", P::name,
                   encoding_.expression);
        std::vector<std::size_t> axes;
        for (std::int64_t pair = 0; pair < encoding_.geometry.pairs(); ++pair) {
            const std::int64_t axis = policy.axis(pair, encoding_.geometry);
            RW_EXPECTS(axis >= 0 && axis < static_cast<std::int64_t>(position_axes),
                       "{} puts pair {} on axis {}, there are {}", P::name, pair, axis, position_axes);
            axes.push_back(static_cast<std::size_t>(axis));
            several_ = several_ || axis != 0;
        }
        bool given = several_;
        if constexpr (requires { policy.has_sections(); }) given = given || policy.has_sections();
        if (given) axes_ = std::move(axes);
    }

    void spread_steps() {
        RW_EXPECTS(!encoding_.has_magnitude() && !encoding_.draw_positions,
                   "'{}': several positions a token go with neither magnitudes nor drawn positions",
                   encoding_.expression);
        const std::size_t pairs = axes_.size();
        encoding_.axis_steps.assign(position_axes * pairs, 0);
        for (std::size_t pair = 0; pair < pairs; ++pair)
            encoding_.axis_steps[axes_[pair] * pairs + pair] = encoding_.steps[pair];
    }

    Encoding encoding_;
    std::vector<real> theta_;
    std::vector<std::size_t> axes_;  ///< [pairs] or empty: tokens have one position
    bool several_ = false;           ///< a pair follows another position than the first
};

/// What says at run time which policies there are.
template <class T>
concept ChosenAtRunTime =
    std::convertible_to<const T&, std::string_view> || std::convertible_to<const T&, std::span<const any_policy>>;

template <class Chosen>
Encoding encode(const Geometry& geometry, std::span<const Chosen> policies) {
    encoding_builder builder(geometry);
    for (const Chosen& policy : policies) std::visit([&builder](const auto& chosen) { builder.apply(chosen); }, policy);
    return std::move(builder).finish();
}

}  // namespace detail

/// The encoding of one head shape by the policies in the order given: linear first, truncated second, say.
/// Throws ropewalk::error when the geometry or a parameter makes no sense.
template <class... Policies>
    requires(sizeof...(Policies) != 1 || !(detail::ChosenAtRunTime<Policies> || ...))
Encoding make_encoding(const Geometry& geometry, const Policies&... policies) {
    detail::encoding_builder builder(geometry);
    (builder.apply(policies), ...);
    return std::move(builder).finish();
}

/// The same for a composition, Linear{.factor = 4} | Truncated{.length = 4096}.
template <class... Policies>
Encoding make_encoding(const Geometry& geometry, const Composed<Policies...>& composed) {
    return std::apply([&](const auto&... policies) { return make_encoding(geometry, policies...); }, composed.policies);
}

/// The same for policies chosen at run time. These are templates so that only those who call them compile the code of
/// every policy.
template <class Chosen = any_policy>
Encoding make_encoding(const Geometry& geometry, std::span<const std::type_identity_t<Chosen>> policies) {
    return detail::encode<Chosen>(geometry, policies);
}
template <class Chosen = any_policy>
Encoding make_encoding(const Geometry& geometry, const std::vector<std::type_identity_t<Chosen>>& policies) {
    return detail::encode<Chosen>(geometry, policies);
}

/// The same for an expression: make_encoding(geometry, "linear:4|truncated:4096").
template <class Chosen = any_policy>
Encoding make_encoding(const Geometry& geometry, std::string_view expression) {
    return detail::encode<Chosen>(geometry, parse_policies<Chosen>(expression));
}

}  // namespace ropewalk
