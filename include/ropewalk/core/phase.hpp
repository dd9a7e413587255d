// An angle is a fraction of a turn in fixed point: the phase accumulator of a numerically controlled oscillator.
#pragma once

#include <cstdint>

#include "ropewalk/core/compiler.hpp"
#include "ropewalk/core/real.hpp"
#include "ropewalk/core/wide.hpp"

namespace ropewalk {

/// A position between two tokens: a number of tokens times 2^32, so −2^31 … 2^31 in steps of 2^-32.
struct fixed_position {
    std::int64_t value = 0;
    friend constexpr bool operator==(const fixed_position&, const fixed_position&) = default;
};

/// The nearest fixed_position of a real number of tokens.
constexpr fixed_position make_fixed_position(const real& tokens) {
    return {static_cast<std::int64_t>(tokens.scaled(32).rounded_modulo_2_64())};
}

/// Turns a token, as a fraction of 2^64, of a pair that turns by `theta` radians a token. A pair that turns by more
/// than one turn a token wraps, which is the same angle at every integer position. Within 4 units of 2^-64 turn up to
/// one turn a token.
constexpr std::uint64_t make_step(const real& theta) { return (theta / two_pi).scaled(64).rounded_modulo_2_64(); }

/// The phase at an integer position, negative ones included; 2^64 is one turn. Overflow is the range reduction, so
/// phase(m, s) − phase(n, s) == phase(m − n, s) bit for bit.
RW_HD RW_INLINE constexpr std::uint64_t phase(std::int64_t position, std::uint64_t step) {
    return static_cast<std::uint64_t>(position) * step;
}

/// The phase at a fractional position, rounded down to 2^-64 turn.
RW_HD constexpr std::uint64_t phase(fixed_position position, std::uint64_t step) {
    const auto bits = static_cast<std::uint64_t>(position.value);
    const std::uint64_t fraction = bits & 0xffffffffU;
    const auto whole = position.value >> 32;
    const detail::wide partial = detail::multiply(fraction, step);
    return phase(whole, step) + ((partial.high << 32) | (partial.low >> 32));
}

}  // namespace ropewalk
