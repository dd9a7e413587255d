// The shape of one head, which every policy and kernel shares.
#pragma once

#include <cstdint>
#include <optional>

#include "ropewalk/core/bits.hpp"
#include "ropewalk/core/error.hpp"
#include "ropewalk/core/layout.hpp"
#include "ropewalk/core/real_math.hpp"

namespace ropewalk {

/// The rotary part of a head: elements [rotary_offset, rotary_offset + rotary_dim) turn, the others pass through.
struct Geometry {
    /// Far beyond any head, and not more than a moment's work.
    static constexpr std::int64_t most_width = 1 << 16;

    std::int64_t head_dim = 128;          ///< elements a head
    std::int64_t rotary_dim = 0;          ///< elements that turn, even; 0 stands for head_dim − rotary_offset
    std::int64_t rotary_offset = 0;       ///< the first element that turns (DeepSeek's MLA puts it behind the others)
    double base = 10000.0;                ///< `rope_theta`
    std::optional<layout_kind> layout{};  ///< when named, kernels refuse to run with the other one
    std::int64_t sequence_length = 0;     ///< tokens, for schemes that depend on it; 0: not known

    /// Elements that turn.
    [[nodiscard]] constexpr std::int64_t width() const {
        return rotary_dim == 0 ? head_dim - rotary_offset : rotary_dim;
    }
    /// Pairs that turn.
    [[nodiscard]] constexpr std::int64_t pairs() const { return width() / 2; }
    /// θ_j = base^(−2j/width), radians a token, before any policy (RoFormer, arXiv 2104.09864, eq. 15).
    [[nodiscard]] constexpr real theta(std::int64_t pair) const {
        return pow(real(base), -(real(2 * pair) / real(width())));
    }

    /// Throws unless the widths fit into the head and the base is a finite number above 1.
    void validate() const {
        RW_EXPECTS(head_dim > 0, "head_dim must be positive, got {}", head_dim);
        RW_EXPECTS(rotary_offset >= 0 && rotary_offset < head_dim,
                   "rotary_offset must lie in the head of {} elements, got {}", head_dim, rotary_offset);
        RW_EXPECTS(rotary_dim >= 0, "rotary_dim must not be negative, got {}", rotary_dim);
        RW_EXPECTS(width() > 0 && width() % 2 == 0, "rotary_dim must be even and positive, got {}", width());
        RW_EXPECTS(width() <= head_dim - rotary_offset, "rotary_dim {} at rotary_offset {} reaches beyond head_dim {}",
                   width(), rotary_offset, head_dim);
        RW_EXPECTS(width() <= most_width, "rotary_dim must not exceed {}, got {}", most_width, width());
        RW_EXPECTS(detail::is_finite(base) && base > 1, "base must be a finite number above 1, got {}", base);
        RW_EXPECTS(sequence_length >= 0, "sequence_length must not be negative, got {}", sequence_length);
    }
};

}  // namespace ropewalk
