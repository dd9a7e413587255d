/// @file  A stack on the CPU or on a device, its reference in float64, and hidden states for both. Define stack_kind
/// before: the types of stack and cache and the functions that make them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include <ropewalk/llama/batch.hpp>
#include <ropewalk/llama/kv_cache.hpp>
#include <ropewalk/llama/rope_schedule.hpp>
#include <ropewalk/llama/synthetic.hpp>

#include "llama/reference.hpp"
#include "support/catch.hpp"
#include "support/errors.hpp"
#include "support/random.hpp"

namespace test {

/// Largest relative difference of two stacks in float32.
inline constexpr double stack_rounding = 1e-5;

template <class T>
std::vector<T> tail(const std::vector<T>& values, std::int64_t count) {
    return {values.end() - static_cast<std::ptrdiff_t>(count), values.end()};
}
inline std::vector<float> joined(std::vector<float> a, const std::vector<float>& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
}

/// A stack, its cache, and hidden states for one sequence of it.
template <class Kind>
class stack_trial {
public:
    stack_trial(random& numbers, const ropewalk::llama::model_config& config,
                const ropewalk::llama::rope_schedule& rope, std::int64_t tokens,
                ropewalk::llama::cache_options cached = {ropewalk::cache_type::f32, 8})
        : config_(config),
          weights(ropewalk::llama::synthetic_weights(config, ropewalk::element_type::f32, 7)),
          stack(Kind::make_stack(config, weights, rope)),
          cache(Kind::make_cache(config, cached)),
          sequence(cache.add_sequence()),
          reference(config, weights),
          rows(static_cast<std::size_t>(tokens * config.hidden_size)) {
        for (float& x : rows) x = static_cast<float>(numbers.normal());
    }

    [[nodiscard]] std::span<const float> given(std::int64_t first, std::int64_t last) const {
        return std::span(rows).subspan(static_cast<std::size_t>(first * config_.hidden_size),
                                       static_cast<std::size_t>((last - first) * config_.hidden_size));
    }
    [[nodiscard]] std::vector<float> part(std::int64_t first, std::int64_t last) const {
        const auto rows_of_part = given(first, last);
        return {rows_of_part.begin(), rows_of_part.end()};
    }

    /// Runs the tokens of one sequence.
    std::vector<float> run(typename Kind::cache& in, int of, std::vector<float> hidden) {
        const ropewalk::llama::segment tokens{of, std::ssize(hidden) / config_.hidden_size};
        stack.forward({&tokens, 1}, hidden, in);
        return hidden;
    }
    /// Runs the tokens [first, last).
    std::vector<float> ours(std::int64_t first, std::int64_t last) { return run(cache, sequence, part(first, last)); }
    /// Tokens [first, last) of a run over [0, last) in a new cache.
    [[nodiscard]] std::vector<float> afresh(std::int64_t first, std::int64_t last) {
        auto other = Kind::make_cache(config_, cache.options());
        return tail(run(other, other.add_sequence(), part(0, last)), (last - first) * config_.hidden_size);
    }
    numbers theirs(std::int64_t first, std::int64_t last, const reference_policy& exact_policy) {
        return reference.forward(given(first, last), exact_policy);
    }
    /// Tokens [first, last) of a run over [0, last) by a new reference.
    [[nodiscard]] numbers exact(std::int64_t first, std::int64_t last, const reference_policy& exact_policy) const {
        return tail(reference_stack(config_, weights).forward(given(0, last), exact_policy),
                    (last - first) * config_.hidden_size);
    }

private:
    ropewalk::llama::model_config config_;

public:
    ropewalk::llama::model_weights weights;
    typename Kind::stack stack;
    typename Kind::cache cache;
    int sequence;
    reference_stack reference;
    std::vector<float> rows;
};

/// Largest difference relative to the largest number.
template <class T>
double difference(const std::vector<float>& ours, const std::vector<T>& theirs) {
    REQUIRE(ours.size() == theirs.size());
    double worst = 0, size = 0;
    for (std::size_t i = 0; i < ours.size(); ++i) {
        const double distance = std::abs(static_cast<double>(ours[i]) - static_cast<double>(theirs[i]));
        worst = distance <= worst ? worst : distance;  // keeps a NaN
        size = std::max(size, std::abs(static_cast<double>(theirs[i])));
    }
    return std::isfinite(worst) ? worst / size : INFINITY;
}

inline ropewalk::Encoding encoded(const ropewalk::llama::model_config& config, const std::string& policy,
                                  std::int64_t length = 0) {
    ropewalk::Geometry geometry = config.geometry();
    geometry.sequence_length = length;
    return ropewalk::make_encoding(geometry, policy);
}

}  // namespace test
