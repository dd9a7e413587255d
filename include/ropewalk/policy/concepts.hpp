// What a policy is.
#pragma once

#include <concepts>
#include <cstdint>
#include <span>
#include <string_view>
#include <tuple>

#include "ropewalk/core/error.hpp"
#include "ropewalk/core/geometry.hpp"
#include "ropewalk/core/phase.hpp"

namespace ropewalk {

/// A parameter of a policy: its name in expressions, in Python and in messages, and the member that holds it.
template <class P, class T>
struct parameter {
    // Written out, nvcc puts parentheses around it which GCC then warns about.
    using member_pointer = T P::*;

    std::string_view name;
    member_pointer member;
};

/// Every policy is a copyable aggregate with a `name` and a tuple of `parameters`, the most important one first.
/// `validate(geometry)` throws when a parameter makes no sense; `neutral()` has the parameters that change nothing,
/// `example()` those of some model, for any geometry, and `example(geometry)` where they depend on it.
template <class P>
concept Policy = std::copyable<P> && requires(const P& policy, const Geometry& geometry) {
    { P::name } -> std::convertible_to<std::string_view>;
    std::tuple_size<std::remove_cvref_t<decltype(P::parameters)>>::value;
    policy.validate(geometry);
};

/// Frequency axis: θ'_j = policy(θ_j, j, geometry), radians a token.
template <class P>
concept FrequencyPolicy =
    Policy<P> && requires(const P& policy, real theta, std::int64_t pair, const Geometry& geometry) {
        { policy(theta, pair, geometry) } -> std::convertible_to<real>;
    };

/// Magnitude axis: pair j of a query at position p is stretched by 2^(−(p − centre) · rate_j), of a key by the
/// inverse.
template <class P>
concept MagnitudePolicy = Policy<P> && requires(const P& policy, std::int64_t pair, const Geometry& geometry) {
    { policy.magnitude_rate(pair, geometry) } -> std::convertible_to<real>;
    { policy.centre() } -> std::convertible_to<std::int64_t>;
    { policy.stated_length() } -> std::convertible_to<std::int64_t>;
};

/// Magnitude axis, constant: cos and sin are multiplied by it, for queries and keys alike.
template <class P>
concept AttentionFactorPolicy = Policy<P> && requires(const P& policy, const Geometry& geometry) {
    { policy.attention_factor(geometry) } -> std::convertible_to<double>;
};

/// Score axis: attention multiplies its softmax scale by it.
template <class P>
concept SoftmaxFactorPolicy = Policy<P> && requires(const P& policy, const Geometry& geometry) {
    { policy.softmax_factor(geometry) } -> std::convertible_to<double>;
};

/// Position axis, where a token has several positions: pair j follows number axis(j), of `position_axes`. Where every
/// pair follows the first, tokens have one position unless `has_sections()` is there and true.
template <class P>
concept PairAxisPolicy = Policy<P> && requires(const P& policy, std::int64_t pair, const Geometry& geometry) {
    { policy.axis(pair, geometry) } -> std::convertible_to<std::int64_t>;
};

/// Position axis: fills in the numbers of the indices 0 … n−1 of batch row `row`. `stated_tokens()` is n where the
/// policy fixes it, else 0.
template <class P>
concept PositionPolicy = Policy<P> && requires(const P& policy, std::uint64_t row, std::span<fixed_position> numbers) {
    policy.draw_positions(row, numbers);
    { policy.stated_tokens() } -> std::convertible_to<std::int64_t>;
};

/// A policy that depends on the sequence length says which of its states the length selects: keys cached in one stage
/// do not fit into another.
template <class P>
concept StagePolicy = Policy<P> && requires(const P& policy, const Geometry& geometry) {
    { policy.stage(geometry) } -> std::convertible_to<std::uint64_t>;
};

template <class P>
concept AnyAxis = FrequencyPolicy<P> || MagnitudePolicy<P> || AttentionFactorPolicy<P> || PositionPolicy<P> ||
                  PairAxisPolicy<P> || SoftmaxFactorPolicy<P>;

}  // namespace ropewalk
