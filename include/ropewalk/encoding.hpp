// Encodings: steps and magnitudes of every pair, from policies and a geometry.
#pragma once

#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
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

namespace detail {

/// A copy of a policy that draws positions, without its type. (The header of std::function costs 0.15 s to compile.)
class position_function {
public:
    position_function() = default;
    template <PositionPolicy P>
    static position_function of(const P& policy) {
        position_function result;
        result.policy_ = new P(policy);
        result.functions_ = &functions_of<P>;
        return result;
    }
    position_function(const position_function& other)
        : policy_(other.policy_ == nullptr ? nullptr : other.functions_->copy(other.policy_)),
          functions_(other.functions_) {}
    position_function(position_function&& other) noexcept
        : policy_(std::exchange(other.policy_, nullptr)), functions_(other.functions_) {}
    position_function& operator=(position_function other) noexcept {
        std::swap(policy_, other.policy_), std::swap(functions_, other.functions_);
        return *this;
    }
    ~position_function() {
        if (policy_ != nullptr) functions_->destroy(policy_);
    }

    explicit operator bool() const { return policy_ != nullptr; }
    bool operator==(std::nullptr_t) const { return policy_ == nullptr; }
    void operator()(std::uint64_t row, std::span<fixed_position> numbers) const {
        functions_->draw(policy_, row, numbers);
    }

private:
    struct functions {
        void (*draw)(const void* policy, std::uint64_t row, std::span<fixed_position> numbers);
        void* (*copy)(const void* policy);
        void (*destroy)(void* policy);
    };
    template <class P>
    static constexpr functions functions_of{
        [](const void* policy, std::uint64_t row, std::span<fixed_position> numbers) {
            static_cast<const P*>(policy)->draw_positions(row, numbers);
        },
        [](const void* policy) -> void* { return new P(*static_cast<const P*>(policy)); },
        [](void* policy) { delete static_cast<P*>(policy); }};

    void* policy_ = nullptr;
    const functions* functions_ = nullptr;
};

}  // namespace detail

/// The result of applying policies to a geometry, as kernels use it. Built by make_encoding().
struct Encoding {
    Geometry geometry;
    std::vector<std::uint64_t> steps;  ///< [pairs], 2^-64 turns per token
    std::vector<double> inv_freq;      ///< [pairs], radians per token, below 2π; 0 where the step is 0
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
    detail::position_function draw_positions;
    std::int64_t drawn_tokens = 0;  ///< the n of draw_positions; 0: the number of tokens of the call

    /// Identifies the part of a length-dependent schedule that is in force: keys cached in one stage do not fit
    /// another.
    std::uint64_t stage = 0;
    std::string expression;  ///< the policies, in the grammar of parse_policies()

    [[nodiscard]] std::int64_t pairs() const { return static_cast<std::int64_t>(steps.size()); }
    [[nodiscard]] bool has_axes() const { return !axis_steps.empty(); }
    [[nodiscard]] bool has_magnitude() const { return !magnitude_rates.empty(); }

    /// Returns the largest |p − centre| whose magnitude, with the attention factor, fits into the element type; 2^61
    /// without magnitudes.
    [[nodiscard]] RW_INLINE std::int64_t reach(element_type type) const {
        // log2 of 65504; f32 and bf16 stay normal on both sides of 1.
        const double bits = type == element_type::f16 ? 15.9993 : 126.0;
        if (!has_magnitude() || attention_factor == 1) return reach(bits);
        return reach(bits - std::fabs(std::log2(attention_factor)));
    }
    /// Returns the largest |p − centre| whose magnitude lies within 2^±bits; 2^61 without magnitudes.
    [[nodiscard]] RW_INLINE std::int64_t reach(double bits) const {
        std::uint64_t steepest = 0;
        for (const std::uint64_t rate : magnitude_rates) steepest = rate > steepest ? rate : steepest;
        // The limit of 2^61 keeps the sum of a centre and a reach within 64 bits.
        if (steepest != 0 && bits < 0) return 0;
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
    RW_COLD explicit encoding_builder(const Geometry& geometry) {
        geometry.validate();
        encoding_.geometry = geometry;
        theta_.resize(static_cast<std::size_t>(geometry.pairs()));
        for (std::size_t pair = 0; pair < theta_.size(); ++pair)
            theta_[pair] = geometry.theta(static_cast<std::int64_t>(pair));
    }

    template <class P>
    void apply(P policy) {
        static_assert(Policy<P>, "a policy needs a name, a tuple of parameters and validate(geometry)");
        static_assert(AnyAxis<P>,
                      "a policy needs one of: operator()(theta, pair, geometry) for the frequency, "
                      "magnitude_rate(pair, geometry) "
                      "with centre() and stated_length(), or attention_factor(geometry), for the magnitude, "
                      "draw_positions(row, numbers) with stated_tokens(), or axis(pair, geometry), for the position, "
                      "softmax_factor(geometry) for the score");
        if constexpr (requires { policy.lacks_original_length(); }) {
            if (policy.lacks_original_length() && encoding_.geometry.original_length != 0)
                policy.original_length = encoding_.geometry.original_length;
        }
        apply_complete(policy);
    }

    RW_COLD Encoding finish() && {
        if (encoding_.expression.empty()) encoding_.expression = Default::name;
        encoding_.steps.resize(theta_.size());
        encoding_.inv_freq.resize(theta_.size());
        for (std::size_t pair = 0; pair < theta_.size(); ++pair) {
            encoding_.steps[pair] = checked_step(pair);
            encoding_.inv_freq[pair] = encoding_.steps[pair] == 0 ? 0 : static_cast<double>(theta_[pair]);
        }
        // Magnitudes and drawn positions need one position per token, which is enough if every pair uses the first
        // axis.
        if (!uses_axes_ && (encoding_.has_magnitude() || encoding_.draw_positions)) axes_.clear();
        if (!axes_.empty()) expand_axis_steps();
        for (const auto& [name, factor] : {std::pair{"an attention factor", encoding_.attention_factor},
                                           std::pair{"a softmax factor", encoding_.softmax_factor}})
            RW_EXPECTS(fits_float(factor), "'{}' has {} of {}: it and its inverse must fit into a normal float",
                       encoding_.expression, name, factor);
        return std::move(encoding_);
    }

private:
    /// The step of a pair. A rotation by whole turns per token does nothing, and one by more than a turn equals a
    /// slower one, so that such a frequency has no meaning.
    [[nodiscard]] RW_COLD std::uint64_t checked_step(std::size_t pair) const {
        RW_EXPECTS(theta_[pair] / two_pi < real(1),
                   "'{}' rotates pair {} by {} radians per token: a frequency must be below 2π, one turn",
                   encoding_.expression, pair, static_cast<double>(theta_[pair]));
        return make_step(theta_[pair]);
    }

    template <class P>
    RW_COLD void apply_complete(const P& policy) {
        const Geometry& geometry = encoding_.geometry;
        policy.validate(geometry);
        if constexpr (FrequencyPolicy<P>) {
            apply_frequencies(P::name, &policy, &frequency_of<P>);
        }
        if constexpr (MagnitudePolicy<P>) apply_magnitude(policy);
        if constexpr (AttentionFactorPolicy<P>) encoding_.attention_factor *= policy.attention_factor(geometry);
        if constexpr (SoftmaxFactorPolicy<P>) encoding_.softmax_factor *= policy.softmax_factor(geometry);
        if constexpr (PositionPolicy<P>) apply_positions(policy);
        if constexpr (PairAxisPolicy<P>) assign_axes(policy);
        if constexpr (StagePolicy<P>) encoding_.stage = encoding_.stage * 1000003U + policy.stage(geometry);
        const P defaults{};
        append_expression(P::name, fields_of(policy), fields_of(defaults));
    }

    RW_COLD void append_expression(std::string_view name, std::span<const field> fields,
                                   std::span<const field> defaults) {
        if (!encoding_.expression.empty()) encoding_.expression += '|';
        encoding_.expression += describe_fields(name, fields, defaults);
    }

    /// Throws unless the policy is the first to set a property of the encoding.
    RW_COLD void expect_first(bool first, std::string_view policy, std::string_view property) const {
        RW_EXPECTS(first, "{} conflicts with '{}': both set {}", policy, encoding_.expression, property);
    }

    template <class P>
    RW_COLD static real frequency_of(const void* policy, const real& theta, std::int64_t pair,
                                     const Geometry& geometry) {
        return (*static_cast<const P*>(policy))(theta, pair, geometry);
    }

    /// The frequencies of a policy, as `frequency` of the policy object computes them.
    RW_COLD void apply_frequencies(std::string_view name, const void* policy,
                                   real (*frequency)(const void* policy, const real& theta, std::int64_t pair,
                                                     const Geometry& geometry)) {
        for (std::int64_t pair = 0; pair < encoding_.geometry.pairs(); ++pair) {
            real& theta = theta_[static_cast<std::size_t>(pair)];
            theta = frequency(policy, theta, pair, encoding_.geometry);
            RW_EXPECTS(!theta.negative(), "{}: the frequency of pair {} must not be negative, got {}", name, pair,
                       static_cast<double>(theta));
        }
    }

    template <class P>
    RW_COLD void apply_magnitude(const P& policy) {
        expect_first(!encoding_.has_magnitude(), P::name, "the magnitude");
        std::vector<std::uint64_t>& rates = encoding_.magnitude_rates;
        rates.resize(theta_.size());
        bool any = false;
        for (std::size_t pair = 0; pair < rates.size(); ++pair) {
            const real rate = policy.magnitude_rate(static_cast<std::int64_t>(pair), encoding_.geometry);
            // Kernels hold rates in fixed point, up to 1/2 per token.
            RW_EXPECTS(!rate.negative() && static_cast<double>(rate) <= 0.5,
                       "{}: the magnitude rate of pair {} must lie in [0, 0.5], got {}", P::name, pair,
                       static_cast<double>(rate));
            rates[pair] = rate.scaled(56).rounded_modulo_2_64();
            any = any || rates[pair] != 0;
        }
        if (!any) rates.clear();
        encoding_.centre = policy.centre();
        constexpr std::int64_t farthest = std::int64_t{1} << 62;
        RW_EXPECTS(encoding_.centre >= -farthest && encoding_.centre <= farthest,
                   "{}: the centre must lie in [-2^62, 2^62], got {}", P::name, encoding_.centre);
        const std::int64_t reach = encoding_.reach(element_type::f32);
        RW_EXPECTS(policy.stated_length() <= encoding_.centre + reach,
                   "{}: length must not exceed {} tokens in f32 and bf16 with these parameters, got {}", P::name,
                   2 * reach, policy.stated_length());
    }

    template <class P>
    RW_COLD void apply_positions(const P& policy) {
        expect_first(!encoding_.draw_positions, P::name, "the positions");
        encoding_.draw_positions = position_function::of(policy);
        encoding_.drawn_tokens =
            policy.stated_tokens() != 0 ? policy.stated_tokens() : encoding_.geometry.sequence_length;
    }

    template <class P>
    RW_COLD void assign_axes(const P& policy) {
        expect_first(!uses_axes_, P::name, "the axes of the pairs");
        std::vector<std::size_t> axes(theta_.size());
        for (std::size_t i = 0; i < axes.size(); ++i) {
            const auto pair = static_cast<std::int64_t>(i);
            const std::int64_t axis = policy.axis(pair, encoding_.geometry);
            RW_EXPECTS(axis >= 0 && axis < static_cast<std::int64_t>(position_axes),
                       "{}: the axis of pair {} must lie in [0, {}), got {}", P::name, pair, position_axes, axis);
            axes[i] = static_cast<std::size_t>(axis);
            uses_axes_ = uses_axes_ || axis != 0;
        }
        bool has_axes = uses_axes_;
        if constexpr (requires { policy.has_sections(); }) has_axes = has_axes || policy.has_sections();
        if (has_axes) axes_ = std::move(axes);
    }

    RW_COLD void expand_axis_steps() {
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

/// A run-time policy specification: an expression, or a list of a variant of policies. (The order matters: only a list
/// instantiates the variant.)
template <class T, class Variant = any_policy>
concept RuntimePolicies =
    std::convertible_to<const T&, std::string_view> ||
    (requires(const T& list) { list.data(); } && std::convertible_to<const T&, std::span<const Variant>>);

/// Reads an expression twice: its errors come before those of a geometry or a parameter. No variant holds the policies,
/// because visiting one of all policies costs seconds to compile.
struct apply_policy {
    template <class P>
    static void receive(P&& policy, void* builder) {
        if (builder != nullptr) static_cast<encoding_builder*>(builder)->apply(std::forward<P>(policy));
    }
};
template <class Variant>
Encoding encode_expression(const Geometry& geometry, std::string_view expression) {
    const auto policies = named_policies<apply_policy>(static_cast<Variant*>(nullptr));
    read_expression(expression, policies, nullptr);
    encoding_builder builder(geometry);
    read_expression(expression, policies, &builder);
    return std::move(builder).finish();
}

}  // namespace detail

/// Returns the encoding of a geometry by the policies, applied in the order given. A policy without its own
/// original_length uses that of the geometry. Steps are exact within 4 units of 2^-64 turn. Throws ropewalk::error for
/// an invalid geometry or parameter, for a frequency of one turn per token or more, and for two policies that set the
/// same property of an encoding.
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

/// The same for an expression, make_encoding(geometry, "linear:4|truncated:4096"), or for a vector or a span of
/// policies selected at run time. (A template, so that only its callers compile every policy.)
template <class Variant = any_policy, class Policies>
    requires(detail::RuntimePolicies<Policies, Variant>)
Encoding make_encoding(const Geometry& geometry, const Policies& policies) {
    if constexpr (std::convertible_to<const Policies&, std::string_view>) {
        return detail::encode_expression<Variant>(geometry, policies);
    } else {
        detail::encoding_builder builder(geometry);
        for (const Variant& policy : std::span<const Variant>(policies))
            std::visit([&builder](const auto& selected) { builder.apply(selected); }, policy);
        return std::move(builder).finish();
    }
}

}  // namespace ropewalk
