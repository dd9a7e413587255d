/// @file  A model on the CPU or on a device, its twin in float64, and tokens for both. Whoever includes this has
/// defined stack_kind before: how to make a stack and a cache, and what the two are.
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

/// The largest relative difference of two stacks that compute in float32.
inline constexpr double stack_rounding = 1e-5;

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
        const auto some = given(first, last);
        return {some.begin(), some.end()};
    }

    /// The tokens [first, last) through the stack.
    std::vector<float> ours(std::int64_t first, std::int64_t last) {
        std::vector<float> hidden = part(first, last);
        const ropewalk::llama::segment one{sequence, last - first};
        stack.forward({&one, 1}, hidden, cache);
        return hidden;
    }
    /// The last tokens of a run over all of [0, last), in a cache of its own.
    [[nodiscard]] std::vector<float> afresh(std::int64_t first, std::int64_t last) {
        auto other = Kind::make_cache(config_, cache.options());
        const ropewalk::llama::segment one{other.add_sequence(), last};
        std::vector<float> hidden = part(0, last);
        stack.forward({&one, 1}, hidden, other);
        return {hidden.begin() + first * config_.hidden_size, hidden.end()};
    }
    numbers theirs(std::int64_t first, std::int64_t last, const reference_scheme& scheme) {
        return reference.forward(given(first, last), scheme);
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

/// The largest difference over the largest number.
template <class T>
double difference(const std::vector<float>& ours, const std::vector<T>& theirs) {
    REQUIRE(ours.size() == theirs.size());
    double most = 0, size = 0;
    for (std::size_t i = 0; i < ours.size(); ++i) {
        const double distance = std::abs(static_cast<double>(ours[i]) - static_cast<double>(theirs[i]));
        most = distance <= most ? most : distance;  // keeps a NaN
        size = std::max(size, std::abs(static_cast<double>(theirs[i])));
    }
    return std::isfinite(most) ? most / size : INFINITY;
}

inline ropewalk::Encoding encoded(const ropewalk::llama::model_config& config, const std::string& policy,
                                  std::int64_t length = 0) {
    ropewalk::Geometry geometry = config.geometry();
    geometry.sequence_length = length;
    return ropewalk::make_encoding(geometry, policy);
}

}  // namespace test
