// Real numbers with a 64-bit mantissa, in integer arithmetic.
//
// The step of a pair needs more precision than a double: a relative error of 2^-53 in the frequency is 2.4e-7 rad at
// position 2^31. Integer arithmetic gives the same bits on every compiler and platform and at compile time, independent
// of -ffast-math, contraction and x87.
#pragma once

#include <bit>
#include <compare>
#include <concepts>
#include <cstdint>
#include <limits>

#include "ropewalk/core/error.hpp"
#include "ropewalk/core/wide.hpp"

namespace ropewalk {

/// A finite number ± mantissa · 2^exponent with the top bit of the mantissa set, or zero. The relative error of + − · /
/// is at most 2^-63. Infinity and NaN do not exist: policies validate their parameters first. Results above
/// 2^largest_exponent throw ropewalk::error; results below 2^-largest_exponent are zero.
class real {
public:
    /// Limit of |exponent|, so that no sum of two exponents overflows.
    static constexpr int largest_exponent = 1 << 28;

    constexpr real() = default;

    /// Exact for every finite double and for every integer of up to 64 bits.
    template <std::floating_point F>
    constexpr real(F value) : real(from_double(static_cast<double>(value))) {}  // NOLINT(google-explicit-constructor)
    template <std::integral I>
    constexpr real(I value)  // NOLINT(google-explicit-constructor)
        : real(value < 0, value < 0 ? 0 - static_cast<std::uint64_t>(value) : static_cast<std::uint64_t>(value), 0) {}

    /// ± mantissa · 2^exponent, normalised.
    constexpr real(bool negative, std::uint64_t mantissa, std::int64_t exponent) {
        if (mantissa == 0) return;
        const int shift = std::countl_zero(mantissa);
        if (exponent - shift < -largest_exponent) return;
        RW_EXPECTS(exponent - shift <= largest_exponent, "a number of 2^{} or more exceeds the limit, 2^{}", exponent,
                   largest_exponent);
        negative_ = negative;
        mantissa_ = mantissa << shift;
        exponent_ = static_cast<int>(exponent - shift);
    }

    [[nodiscard]] constexpr bool negative() const { return negative_; }
    [[nodiscard]] constexpr std::uint64_t mantissa() const { return mantissa_; }
    [[nodiscard]] constexpr int exponent() const { return exponent_; }
    [[nodiscard]] constexpr bool is_zero() const { return mantissa_ == 0; }

    /// Rounds to the nearest double, ties away from zero; zero below the normal range, ±max above it.
    constexpr explicit operator double() const {
        if (is_zero() || exponent_ + 63 < -1022) return 0;
        std::uint64_t kept = mantissa_ >> 11;
        int scale = exponent_ + 63;
        kept += (mantissa_ >> 10) & 1U;
        if ((kept >> 53) != 0) {
            kept >>= 1;
            ++scale;
        }
        if (scale > 1023) return negative_ ? -std::numeric_limits<double>::max() : std::numeric_limits<double>::max();
        const std::uint64_t bits =
            (kept & ((std::uint64_t{1} << 52) - 1)) | (static_cast<std::uint64_t>(scale + 1023) << 52);
        return std::bit_cast<double>(bits | (static_cast<std::uint64_t>(negative_) << 63));
    }

    constexpr real operator-() const {
        real result = *this;
        result.negative_ = !is_zero() && !negative_;
        return result;
    }

    RW_NOINLINE friend constexpr real operator*(const real& a, const real& b) { return product(a, b); }
    RW_NOINLINE friend constexpr real operator+(const real& a, const real& b) { return sum(a, b); }
    /// Requires b != 0.
    RW_NOINLINE friend constexpr real operator/(const real& a, const real& b) {
        if (a.is_zero()) return {};
        // a/2 < b always, so the quotient of (a/2)·2^64 by b has 63 or 64 bits.
        const detail::wide half{a.mantissa_ >> 1, a.mantissa_ << 63};
        std::uint64_t remainder = 0;
        const std::uint64_t quotient = detail::divide(half, b.mantissa_, &remainder);
        const detail::wide digits{quotient, detail::divide({remainder, 0}, b.mantissa_)};
        return rounded(a.negative_ != b.negative_, digits, a.exponent_ - b.exponent_ - 127);
    }

    friend constexpr real operator-(const real& a, const real& b) { return a + (-b); }

    friend constexpr bool operator==(const real& a, const real& b) = default;
    RW_NOINLINE friend constexpr std::strong_ordering operator<=>(const real& a, const real& b) {
        const real difference = a - b;
        if (difference.is_zero()) return std::strong_ordering::equal;
        return difference.negative_ ? std::strong_ordering::less : std::strong_ordering::greater;
    }

    /// The value times 2^shift, exactly.
    [[nodiscard]] constexpr real scaled(int shift) const {
        return {negative_, mantissa_, std::int64_t{exponent_} + shift};
    }

    /// Rounds to the nearest integer modulo 2^64, in two's complement, as a wrapping phase needs.
    [[nodiscard]] constexpr std::uint64_t rounded_modulo_2_64() const {
        if (is_zero() || exponent_ >= 64 || exponent_ < -64) return 0;
        std::uint64_t value = 0;
        if (exponent_ >= 0) {
            value = mantissa_ << exponent_;
        } else {
            value = exponent_ == -64 ? 0 : mantissa_ >> -exponent_;
            value += (mantissa_ >> (-exponent_ - 1)) & 1U;
        }
        return negative_ ? 0 - value : value;
    }

    /// The product and the sum, for inner loops. The operators call them, so that the text of other callers stays
    /// small.
    RW_INLINE static constexpr real product(const real& a, const real& b) {
        if (a.is_zero() || b.is_zero()) return {};
        return rounded(a.negative_ != b.negative_, detail::multiply(a.mantissa_, b.mantissa_),
                       a.exponent_ + b.exponent_);
    }
    RW_INLINE static constexpr real sum(const real& one, const real& other) {
        if (one.is_zero()) return other;
        if (other.is_zero()) return one;
        const bool swaps =
            one.exponent_ < other.exponent_ || (one.exponent_ == other.exponent_ && one.mantissa_ < other.mantissa_);
        const real &a = swaps ? other : one, &b = swaps ? one : other;  // |a| >= |b|
        const int shift = a.exponent_ - b.exponent_;
        if (shift > 126) return a;
        // Both mantissas in 128 bits, with one bit of headroom.
        const detail::wide large{a.mantissa_ >> 1, a.mantissa_ << 63};
        detail::wide small{b.mantissa_ >> 1, b.mantissa_ << 63};
        if (shift >= 64) {
            small = {0, small.high >> (shift - 64)};
        } else if (shift > 0) {
            small = {small.high >> shift, (small.low >> shift) | (small.high << (64 - shift))};
        }
        detail::wide digits{};
        if (a.negative_ == b.negative_) {
            digits.low = large.low + small.low;
            digits.high = large.high + small.high + static_cast<std::uint64_t>(digits.low < large.low);
        } else {
            digits.low = large.low - small.low;
            digits.high = large.high - small.high - static_cast<std::uint64_t>(large.low < small.low);
        }
        return rounded(a.negative_, digits, a.exponent_ - 63);
    }

private:
    RW_NOINLINE static constexpr real from_double(double value) {
        const auto bits = std::bit_cast<std::uint64_t>(value);
        const std::uint64_t fraction = bits & ((std::uint64_t{1} << 52) - 1);
        const int biased = static_cast<int>((bits >> 52) & 0x7ffU);
        if (biased == 0) return {(bits >> 63) != 0, fraction, -1074};
        return {(bits >> 63) != 0, fraction | (std::uint64_t{1} << 52), biased - 1075};
    }

    /// digits · 2^exponent, rounded to 64 bits.
    static constexpr real rounded(bool negative, detail::wide digits, int exponent) {
        if (digits.high == 0) return {negative, digits.low, exponent};
        const int shift = std::countl_zero(digits.high);
        std::uint64_t high = digits.high;
        std::uint64_t low = digits.low;
        if (shift > 0) {
            high = (high << shift) | (low >> (64 - shift));
            low <<= shift;
        }
        if ((low >> 63) != 0 && ++high == 0) return {negative, std::uint64_t{1} << 63, exponent + 65 - shift};
        return {negative, high, exponent + 64 - shift};
    }

    std::uint64_t mantissa_ = 0;
    int exponent_ = 0;
    bool negative_ = false;
};

/// 2π and ln 2, each to 64 bits.
inline constexpr real two_pi{false, 0xC90FDAA22168C235U, -61};
inline constexpr real ln_2{false, 0xB17217F7D1CF79ACU, -64};

}  // namespace ropewalk
