// Angles as 64-bit fractions of a turn, as in the phase accumulator of a numerically controlled oscillator.
#pragma once

#include <cstdint>

#include "ropewalk/core/bits.hpp"
#include "ropewalk/core/compiler.hpp"
#include "ropewalk/core/real.hpp"
#include "ropewalk/core/wide.hpp"

namespace ropewalk {

/// A fractional position in 32.32 fixed point: tokens times 2^32, from −2^31 to 2^31 in steps of 2^-32.
struct fixed_position {
    std::int64_t value = 0;
    friend constexpr bool operator==(const fixed_position&, const fixed_position&) = default;
};

/// Returns the fixed_position nearest to a real number of tokens.
constexpr fixed_position make_fixed_position(const real& tokens) {
    return {static_cast<std::int64_t>(tokens.scaled(32).rounded_modulo_2_64())};
}

/// Returns the step of a pair that rotates by `theta` radians per token: its turns per token times 2^64. Above one turn
/// per token the step wraps, which leaves the angle at every integer position unchanged. Error below 4 units of
/// 2^-64 turn for frequencies up to one turn per token.
constexpr std::uint64_t make_step(const real& theta) { return (theta / two_pi).scaled(64).rounded_modulo_2_64(); }

/// Returns the phase at an integer position, which may be negative; 2^64 is one turn. The multiplication wraps, which
/// is the range reduction: phase(m, s) − phase(n, s) == phase(m − n, s) holds bit for bit.
RW_HD RW_INLINE constexpr std::uint64_t phase(std::int64_t position, std::uint64_t step) {
    return static_cast<std::uint64_t>(position) * step;
}

/// Returns the upper half of the phase at an integer position modulo 2^64, in 2^-32 turns.
RW_HD RW_INLINE constexpr std::uint32_t upper_phase(std::uint64_t position, std::uint64_t step) {
    const auto low = static_cast<std::uint32_t>(position), step_low = static_cast<std::uint32_t>(step);
    return detail::upper_product(low, step_low) + low * static_cast<std::uint32_t>(step >> 32) +
           static_cast<std::uint32_t>(position >> 32) * step_low;
}

/// Returns the phase at a fractional position, rounded down to 2^-64 turn.
RW_HD constexpr std::uint64_t phase(fixed_position position, std::uint64_t step) {
    const auto bits = static_cast<std::uint64_t>(position.value);
    const std::uint64_t fraction = bits & 0xffffffffU;
    const auto whole = position.value >> 32;
    const detail::wide partial = detail::multiply(fraction, step);
    return phase(whole, step) + ((partial.high << 32) | (partial.low >> 32));
}

}  // namespace ropewalk
