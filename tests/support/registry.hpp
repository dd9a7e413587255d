/// @file  Iteration over the registered policies, and the rotation that each policy defines. Tests that use it cover a
/// new policy as soon as the registry lists it.
#pragma once

#include <cmath>
#include <cstddef>
#include <utility>
#include <variant>
#include <vector>

#include <ropewalk/encoding.hpp>

#include "support/compare.hpp"
#include "support/encodings.hpp"
#include "support/oracle.hpp"
#include "support/reals.hpp"

namespace test {

template <class F, std::size_t... I>
void for_each_policy(const F& f, std::index_sequence<I...>) {
    (f.template operator()<std::variant_alternative_t<I, ropewalk::any_policy>>(), ...);
}
/// Calls f.template operator()<P>() for every registered policy P.
template <class F>
void for_each_policy(const F& f) {
    for_each_policy(f, std::make_index_sequence<std::variant_size_v<ropewalk::any_policy>>{});
}

template <class P>
concept has_example = requires {
    { P::example() } -> std::same_as<P>;
};
template <class P>
concept has_neutral = requires {
    { P::neutral() } -> std::same_as<P>;
};

/// Returns the example of a policy for a geometry.
template <class P>
P example_for(const ropewalk::Geometry& geometry) {
    if constexpr (requires { P::example(geometry); }) return P::example(geometry);
    return P::example();
}

template <class P>
bool same_parameters(const P& a, const P& b) {
    return std::apply([&](const auto&... each) { return ((a.*each.member == b.*each.member) && ...); }, P::parameters);
}

/// The rotation that a policy defines on a geometry, in exact numbers, without kernels and fixed point.
template <class P>
struct definition {
    ropewalk::Geometry geometry;
    P policy;

    /// Returns θ'_j / 2π for θ_j = `before`.
    [[nodiscard]] oracle::dd turns(std::int64_t pair, const ropewalk::real& before) const {
        ropewalk::real theta = before;
        if constexpr (ropewalk::FrequencyPolicy<P>) theta = policy(before, pair, geometry);
        return to_dd(theta) / oracle::two_pi;
    }
    [[nodiscard]] oracle::dd turns(std::int64_t pair) const { return turns(pair, geometry.theta(pair)); }

    [[nodiscard]] double factor() const {
        if constexpr (ropewalk::AttentionFactorPolicy<P>) return policy.attention_factor(geometry);
        return 1;
    }
    [[nodiscard]] std::int64_t centre() const {
        if constexpr (ropewalk::MagnitudePolicy<P>) return policy.centre();
        return 0;
    }
    /// Returns the magnitude of a query at p; that of a key is the inverse.
    [[nodiscard]] double magnitude(std::int64_t pair, oracle::place p) const {
        if constexpr (ropewalk::MagnitudePolicy<P>) {
            const double distance = static_cast<double>(p.whole - policy.centre()) + p.fraction * 0x1p-32;
            return std::exp2(-distance * static_cast<double>(policy.magnitude_rate(pair, geometry)));
        }
        return 1;
    }
    /// Returns the positions of the tokens first, first + 1, … of every batch row.
    [[nodiscard]] std::vector<oracle::place> places(const extents& size, std::int64_t first) const {
        if constexpr (ropewalk::PositionPolicy<P>) {
            const std::int64_t stated = policy.stated_tokens();
            std::vector<ropewalk::fixed_position> drawn(
                static_cast<std::size_t>(stated != 0 ? stated : geometry.sequence_length));
            std::vector<oracle::place> result;
            for (std::int64_t row = 0; row < size.batch; ++row) {
                policy.draw_positions(static_cast<std::uint64_t>(row), drawn);
                for (std::int64_t t = 0; t < size.tokens; ++t) {
                    const std::int64_t value = drawn[static_cast<std::size_t>(first + t)].value;
                    result.push_back({value >> 32, static_cast<std::uint32_t>(value & 0xffffffff)});
                }
            }
            return result;
        } else {
            return consecutive(size, first);
        }
    }
    /// Returns a whole array, rotated.
    [[nodiscard]] std::vector<double> rotate(const oracle::shape& s, std::vector<double> x,
                                             const std::vector<oracle::place>& at, oracle::role role) const {
        oracle::apply(s, x, [&](std::int64_t pair, std::int64_t token) {
            const oracle::place p = at[static_cast<std::size_t>(token)];
            const oracle::unit u = oracle::cos_sin(turns(pair), p);
            const double query = magnitude(pair, p);
            const double m = factor() * (role == oracle::role::query ? query : 1 / query);
            return oracle::unit{u.cos * m, u.sin * m};
        });
        return x;
    }
};

}  // namespace test
