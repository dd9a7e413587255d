// Shape of one attention head and the base of its frequencies.
#pragma once

#include <cstdint>
#include <optional>

#include "ropewalk/core/bits.hpp"
#include "ropewalk/core/error.hpp"
#include "ropewalk/core/layout.hpp"
#include "ropewalk/core/real_math.hpp"

namespace ropewalk {

/// The rotary part of a head: elements [rotary_offset, rotary_offset + rotary_dim) rotate, the others stay unchanged.
struct Geometry {
    /// The largest rotary_dim that validate() accepts. It bounds the time to build an encoding.
    static constexpr std::int64_t max_width = 1 << 16;

    std::int64_t head_dim = 128;          ///< elements per head
    std::int64_t rotary_dim = 0;          ///< elements that rotate, even; 0 means head_dim − rotary_offset
    std::int64_t rotary_offset = 0;       ///< first element that rotates (DeepSeek's MLA rotates the end of a head)
    double base = 10000.0;                ///< `rope_theta`
    std::optional<layout_kind> layout{};  ///< if set, kernels reject the other layout
    std::int64_t sequence_length = 0;     ///< tokens, for policies that depend on it; 0: unknown
    std::int64_t original_length = 0;     ///< trained context length, tokens, for policies that omit theirs; 0: unknown

    /// Returns the number of elements that rotate.
    [[nodiscard]] constexpr std::int64_t width() const {
        return rotary_dim == 0 ? head_dim - rotary_offset : rotary_dim;
    }
    /// Returns the number of pairs.
    [[nodiscard]] constexpr std::int64_t pairs() const { return width() / 2; }
    /// Returns θ_j = base^(−2j/width), radians per token, before any policy (RoFormer, arXiv 2104.09864, eq. 15).
    [[nodiscard]] constexpr real theta(std::int64_t pair) const {
        return pow(real(base), -(real(2 * pair) / real(width())));
    }

    /// Throws ropewalk::error unless the rotary part fits into the head, the base is a finite number above 1 and the
    /// lengths are not negative.
    void validate() const {
        RW_EXPECTS(head_dim > 0, "head_dim must be positive, got {}", head_dim);
        RW_EXPECTS(rotary_offset >= 0 && rotary_offset < head_dim, "rotary_offset must lie in [0, {}), got {}",
                   head_dim, rotary_offset);
        RW_EXPECTS(rotary_dim >= 0, "rotary_dim must not be negative, got {}", rotary_dim);
        RW_EXPECTS(width() > 0 && width() % 2 == 0, "rotary_dim must be even and positive, got {}", width());
        RW_EXPECTS(width() <= head_dim - rotary_offset, "rotary_dim {} at rotary_offset {} exceeds head_dim {}",
                   width(), rotary_offset, head_dim);
        RW_EXPECTS(width() <= max_width, "rotary_dim must not exceed {}, got {}", max_width, width());
        RW_EXPECTS(detail::is_finite(base) && base > 1, "base must be a finite number above 1, got {}", base);
        RW_EXPECTS(sequence_length >= 0, "sequence_length must not be negative, got {}", sequence_length);
        RW_EXPECTS(original_length >= 0, "original_length must not be negative, got {}", original_length);
    }
};

}  // namespace ropewalk
