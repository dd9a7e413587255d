/// @file  Random encodings of the library together with the oracle's own version, and distances between the two.
#pragma once

#include <cmath>
#include <string>

#include <ropewalk/encoding.hpp>

#include "support/oracle.hpp"
#include "support/random.hpp"
#include "support/reals.hpp"
#include "support/scaling_oracle.hpp"

namespace test {

/// The same encoding from the library and from the oracle.
struct twin {
    ropewalk::Encoding ours;
    oracle::encoding exact;
};

/// Distance of a step from 2^64 · turns modulo 2^64, in units of 2^-64 turn.
inline double step_error(std::uint64_t step, oracle::dd turns) {
    oracle::dd difference = turns - oracle::scaled(oracle::from_integer(static_cast<std::int64_t>(step)), -64);
    difference = difference - oracle::dd{std::nearbyint(difference.hi)};
    difference = difference - oracle::dd{std::nearbyint(difference.hi)};
    return std::fabs(std::ldexp(oracle::to_double(difference), 64));
}

inline double worst_step_error(const twin& t) {
    double worst = 0;
    for (std::size_t j = 0; j < t.ours.steps.size(); ++j)
        worst = std::max(worst, step_error(t.ours.steps[j], t.exact.turns[j]));
    return worst;
}

/// A base in [10^4, 10^7], often one of a real model.
inline double random_base(random& numbers) {
    return numbers.coin() ? numbers.one_of({1e4, 1.5e5, 5e5, 1e6, 5e6, 1e7}) : numbers.logarithmic(1e4, 1e7);
}

/// Appends a random NTK, dynamic NTK, YaRN, Llama 3 or proportional policy to both.
inline void append_scaling_method(random& numbers, const ropewalk::Geometry& g,
                                  std::vector<ropewalk::any_policy>& policies, std::vector<oracle::dd>& theta) {
    const double factor = numbers.coin() ? numbers.one_of({2.0, 4.0, 8.0, 32.0}) : numbers.logarithmic(1, 64);
    const auto original = numbers.one_of<std::int64_t>({2048, 4096, 8192, 32768});
    switch (numbers.integer(0, 4)) {
        case 0:
            policies.push_back(ropewalk::Ntk{.alpha = factor});
            theta = oracle::ntk(theta, g.base, {factor});
            return;
        case 1:
            policies.push_back(ropewalk::DynamicNtk{.factor = factor, .original_length = original});
            theta = oracle::ntk(theta, g.base, oracle::dynamic_alpha(factor, original, g.sequence_length));
            return;
        case 2: {
            const oracle::ramp r{factor, original, 32, 1, numbers.coin()};
            policies.push_back(ropewalk::Yarn{.factor = r.factor,
                                              .original_length = original,
                                              .truncate = r.truncate,
                                              .attention_factor_given = 1.0});
            theta = oracle::yarn(theta, g.base, r);
            return;
        }
        case 3:
            policies.push_back(ropewalk::Llama3{.factor = factor, .original_length = original});
            theta = oracle::llama3(theta, {factor, 1, 4, original});
            return;
        default: {
            const double part = numbers.one_of({0.25, 0.5, 0.75});
            policies.push_back(ropewalk::Proportional{.partial_rotary_factor = part, .factor = factor});
            theta =
                oracle::proportional(theta, static_cast<std::size_t>(part * static_cast<double>(theta.size())), factor);
        }
    }
}

/// Appends one random frequency policy to both.
inline void append_policy(random& numbers, const ropewalk::Geometry& g, std::vector<ropewalk::any_policy>& policies,
                          std::vector<oracle::dd>& theta) {
    switch (numbers.integer(0, 5)) {
        case 0:
            policies.push_back(ropewalk::Default{});
            return;
        case 1: {
            const double factor = numbers.coin() ? numbers.one_of({2.0, 4.0, 8.0, 16.0}) : numbers.logarithmic(1, 64);
            policies.push_back(ropewalk::Linear{.factor = factor});
            theta = oracle::linear(theta, factor);
            return;
        }
        case 2: {
            const double k = numbers.coin() ? numbers.one_of({0.0, 0.1, 0.5, 1.0}) : numbers.uniform(0, 2);
            policies.push_back(ropewalk::Power{.k = k});
            theta = oracle::power(theta, k);
            return;
        }
        case 3: {
            const double length = numbers.logarithmic(256, 1e6);
            policies.push_back(ropewalk::Truncated{.length = length});
            theta = oracle::truncated(theta, length);
            return;
        }
        default:
            append_scaling_method(numbers, g, policies, theta);
    }
}

/// An encoding by zero to three frequency policies.
inline twin random_twin(random& numbers, ropewalk::Geometry geometry) {
    if (numbers.coin()) geometry.sequence_length = numbers.integer(1, 1 << 20);
    std::vector<ropewalk::any_policy> policies;
    std::vector<oracle::dd> theta = oracle::plain(geometry.base, geometry.width());
    for (std::int64_t count = numbers.integer(0, 3); count > 0; --count)
        append_policy(numbers, geometry, policies, theta);
    return {ropewalk::make_encoding(geometry, std::span<const ropewalk::any_policy>(policies)), oracle::encode(theta)};
}

inline twin plain_twin(const ropewalk::Geometry& geometry) {
    return {ropewalk::make_encoding(geometry, ropewalk::Default{}),
            oracle::encode(oracle::plain(geometry.base, geometry.width()))};
}
inline twin linear_twin(const ropewalk::Geometry& geometry, double factor) {
    return {ropewalk::make_encoding(geometry, ropewalk::Linear{.factor = factor}),
            oracle::encode(oracle::linear(oracle::plain(geometry.base, geometry.width()), factor))};
}

/// Plain frequencies with xPos magnitudes around length/2.
inline twin xpos_twin(const ropewalk::Geometry& geometry, const ropewalk::XPos& xpos) {
    twin result{ropewalk::make_encoding(geometry, xpos),
                oracle::encode(oracle::plain(geometry.base, geometry.width()))};
    result.exact.magnitude = oracle::xpos_magnitude{xpos.scale_base, xpos.gamma, xpos.length / 2};
    return result;
}

/// A policy that multiplies cos and sin by a constant, as YaRN and LongRoPE do.
struct Constant {
    double factor = 1;

    static constexpr std::string_view name = "constant";
    static constexpr auto parameters = std::tuple{ropewalk::parameter<Constant, double>{"factor", &Constant::factor}};
    constexpr void validate(const ropewalk::Geometry& /*geometry*/) const {}
    [[nodiscard]] constexpr double attention_factor(const ropewalk::Geometry& /*geometry*/) const { return factor; }
};

/// The largest relative difference between a frequency policy and the oracle's frequencies.
template <class P>
double worst_frequency_error(const P& policy, const ropewalk::Geometry& geometry,
                             const std::vector<oracle::dd>& exact) {
    double worst = 0;
    for (std::int64_t j = 0; j < geometry.pairs(); ++j) {
        worst =
            std::max(worst, relative_error(policy(geometry.theta(j), j, geometry), exact[static_cast<std::size_t>(j)]));
    }
    return worst;
}

}  // namespace test
