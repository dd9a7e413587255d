// Score axis: changes to attention logits that are independent of the rotation. The caller's attention applies them.
#pragma once

#include <bit>
#include <vector>

#include "ropewalk/core/bits.hpp"
#include "ropewalk/core/error.hpp"
#include "ropewalk/core/real_math.hpp"

namespace ropewalk {

/// Query temperature of Llama 4, which keeps attention sharp in long contexts. Its layers without RoPE multiply the
/// query at position p by 1 + scale · ln(1 + ⌊(p+1)/length⌋) (Transformers' `attn_scale` 0.1 and `floor_scale` 8192).
struct QueryTemperature {
    double scale = 0.1;
    std::int64_t length = 8192;  ///< tokens

    /// Returns the factor at a position, which is 1 below position length − 1. Throws ropewalk::error for a negative
    /// position, a non-positive length or a scale that is not finite.
    [[nodiscard]] constexpr double operator()(std::int64_t position) const {
        RW_EXPECTS(length > 0, "query temperature: length must be positive, got {}", length);
        RW_EXPECTS(position >= 0 && position < std::numeric_limits<std::int64_t>::max(),
                   "query temperature: position must lie in [0, 2^63 - 1), got {}", position);
        RW_EXPECTS(detail::is_finite(scale), "query temperature: scale must be finite, got {}", scale);
        const std::int64_t periods = (position + 1) / length;
        return static_cast<double>(real(1) + real(scale) * log(real(1) + real(periods)));
    }
};

/// Returns the slopes of ALiBi, [heads], positive: head h = 1 … n adds −slope_h · (p_q − p_k) to its logits. slope_h is
/// 2^(−8h/n) if n is a power of two. Otherwise the slopes are those of the next lower power of two m, followed by every
/// second slope of 2m (Press et al., arXiv 2108.12409, §3 and its code). Throws ropewalk::error unless heads is
/// positive and below 2^32.
inline std::vector<double> alibi_slopes(std::int64_t heads) {
    RW_EXPECTS(heads > 0 && heads < (std::int64_t{1} << 32), "alibi: heads must lie in [1, 2^32), got {}", heads);
    const auto below = static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(heads)));
    const auto slope = [](std::int64_t h, std::int64_t n) {
        return static_cast<double>(exp2(-(real(8 * h) / real(n))));
    };
    std::vector<double> slopes;
    for (std::int64_t h = 1; h <= below; ++h) slopes.push_back(slope(h, below));
    for (std::int64_t h = 1; static_cast<std::int64_t>(slopes.size()) < heads; h += 2)
        slopes.push_back(slope(h, 2 * below));
    return slopes;
}

}  // namespace ropewalk
