// Concepts of policies, one per axis of an encoding.
#pragma once

#include <concepts>
#include <cstdint>
#include <span>
#include <string_view>
#include <tuple>

#include "ropewalk/core/bits.hpp"
#include "ropewalk/core/error.hpp"
#include "ropewalk/core/geometry.hpp"
#include "ropewalk/core/phase.hpp"

namespace ropewalk {

/// A parameter of a policy: its name in expressions, in Python and in messages, and the member that holds it.
template <class P, class T>
struct parameter {
    // An alias, because nvcc otherwise adds parentheses that GCC warns about.
    using member_pointer = T P::*;

    std::string_view name;
    member_pointer member;
    /// The parameter has no natural default: validate() refuses the default of the member, and Python demands a value.
    bool required = false;
};

/// A copyable aggregate with a `name` and a tuple of `parameters`, the most important one first. `validate(geometry)`
/// throws ropewalk::error for invalid parameters.
///
/// Registered policies also have `about`, one sentence, and up to three static functions: `neutral()` returns
/// parameters that change nothing, `example()` those of some model, `example(geometry)` those that depend on it. A
/// policy may have `validate()`, which throws for parameters that no geometry makes valid: Python calls it when the
/// policy is made. A policy with a member `original_length` may have `lacks_original_length()`: where that returns
/// true, make_encoding() sets the member to that of the geometry.
template <class P>
concept Policy = std::copyable<P> && requires(const P& policy, const Geometry& geometry) {
    { P::name } -> std::convertible_to<std::string_view>;
    std::tuple_size<std::remove_cvref_t<decltype(P::parameters)>>::value;
    policy.validate(geometry);
};

/// Frequency axis: θ'_j = policy(θ_j, j, geometry), radians per token.
template <class P>
concept FrequencyPolicy =
    Policy<P> && requires(const P& policy, real theta, std::int64_t pair, const Geometry& geometry) {
        { policy(theta, pair, geometry) } -> std::convertible_to<real>;
    };

/// Magnitude axis: pair j of a query at position p is multiplied by 2^(−(p − centre) · rate_j), of a key by the
/// inverse. `stated_length()` is the longest sequence in tokens, or 0.
template <class P>
concept MagnitudePolicy = Policy<P> && requires(const P& policy, std::int64_t pair, const Geometry& geometry) {
    { policy.magnitude_rate(pair, geometry) } -> std::convertible_to<real>;
    { policy.centre() } -> std::convertible_to<std::int64_t>;
    { policy.stated_length() } -> std::convertible_to<std::int64_t>;
};

/// Magnitude axis, constant: a factor on cos and sin, for queries and keys alike.
template <class P>
concept AttentionFactorPolicy = Policy<P> && requires(const P& policy, const Geometry& geometry) {
    { policy.attention_factor(geometry) } -> std::convertible_to<double>;
};

/// Score axis: a factor on the softmax scale of attention.
template <class P>
concept SoftmaxFactorPolicy = Policy<P> && requires(const P& policy, const Geometry& geometry) {
    { policy.softmax_factor(geometry) } -> std::convertible_to<double>;
};

/// Position axis for tokens with several positions: pair j uses position number axis(j), in [0, 3). If every pair
/// uses axis 0, tokens have one position unless `has_sections()` exists and returns true.
template <class P>
concept PairAxisPolicy = Policy<P> && requires(const P& policy, std::int64_t pair, const Geometry& geometry) {
    { policy.axis(pair, geometry) } -> std::convertible_to<std::int64_t>;
};

/// Position axis: writes the positions of the tokens 0 … n−1 of batch row `row` into `numbers`. `stated_tokens()` is n
/// if the policy fixes it, else 0.
template <class P>
concept PositionPolicy = Policy<P> && requires(const P& policy, std::uint64_t row, std::span<fixed_position> numbers) {
    policy.draw_positions(row, numbers);
    { policy.stated_tokens() } -> std::convertible_to<std::int64_t>;
};

/// A policy that depends on the sequence length. `stage(geometry)` identifies the frequencies that the length selects:
/// keys cached in one stage do not fit another.
template <class P>
concept StagePolicy = Policy<P> && requires(const P& policy, const Geometry& geometry) {
    { policy.stage(geometry) } -> std::convertible_to<std::uint64_t>;
};

/// A policy of at least one axis.
template <class P>
concept AnyAxis = FrequencyPolicy<P> || MagnitudePolicy<P> || AttentionFactorPolicy<P> || PositionPolicy<P> ||
                  PairAxisPolicy<P> || SoftmaxFactorPolicy<P>;

namespace detail {

/// Throws that a policy lacks a required parameter unless `given`, with an expression that states one.
RW_COLD constexpr void expect_given(bool given, std::string_view policy, std::string_view parameter,
                                    std::string_view meaning, std::string_view example) {
    RW_EXPECTS(given, "{} needs {}, {}: write {}", policy, parameter, meaning, example);
}

/// The check of a factor, scale or other parameter that must be positive and finite.
RW_COLD constexpr void expect_positive(std::string_view policy, std::string_view parameter, const double& value) {
    RW_EXPECTS(is_finite(value) && value > 0, "{}: {} must be a positive number, got {}", policy, parameter, value);
}

}  // namespace detail

}  // namespace ropewalk
