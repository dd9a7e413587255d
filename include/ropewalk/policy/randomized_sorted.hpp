// Sorted random integer positions, for training.
#pragma once

#include <bit>
#include <vector>

#include "ropewalk/core/random.hpp"
#include "ropewalk/policy/concepts.hpp"

namespace ropewalk {

/// n integer positions, drawn without replacement from 0 … range−1 and sorted (Ruoss et al., "Randomized positional
/// encodings boost length generalization", arXiv 2305.16843, §3.1).
///
/// n is the sequence length of the geometry, else the number of tokens of the call. Seeds, rows and draws are as in
/// Randomized.
struct RandomizedSorted {
    std::int64_t range = 0;  ///< required: N, tokens; at least n, below 2^31
    std::int64_t seed = 0;
    std::int64_t draw = 0;  ///< index of the forward pass

    static constexpr std::string_view name = "randomized_sorted";
    static constexpr std::string_view about = "Sorted random integer positions from a longer range, for training.";
    using integer = parameter<RandomizedSorted, std::int64_t>;
    static constexpr auto parameters =
        std::tuple{integer{"range", &RandomizedSorted::range, true}, integer{"seed", &RandomizedSorted::seed},
                   integer{"draw", &RandomizedSorted::draw}};

    constexpr void validate(const Geometry& geometry = {}) const {
        detail::expect_given(range != 0, name, "range", "a number of tokens", "randomized_sorted:65536");
        RW_EXPECTS(range > 0 && range < (std::int64_t{1} << 31),
                   "randomized_sorted: range must lie in [1, 2^31), got {}", range);
        expect_range(geometry.sequence_length);
        RW_EXPECTS(draw >= 0 && draw < (std::int64_t{1} << 32), "randomized_sorted: draw must lie in [0, 2^32), got {}",
                   draw);
    }
    [[nodiscard]] constexpr std::int64_t stated_tokens() const { return 0; }
    static constexpr RandomizedSorted example() { return {.range = 65536, .seed = 1}; }

    /// Floyd's sampling ("Programming pearls", CACM 30(9), 1987) into a bitmap, which is then scanned in order.
    void draw_positions(std::uint64_t row, std::span<fixed_position> numbers) const {
        const auto n = static_cast<std::int64_t>(numbers.size());
        expect_range(n);
        std::vector<std::uint64_t> taken((static_cast<std::size_t>(range) + 63) / 64);
        const auto take = [&taken](std::uint64_t candidate) {
            std::uint64_t& word = taken[candidate / 64];
            const std::uint64_t bit = std::uint64_t{1} << (candidate % 64);
            const bool free = (word & bit) == 0;
            word |= bit;
            return free;
        };
        for (std::int64_t last = range - n; last < range; ++last) {
            const auto bits = random_bits(static_cast<std::uint64_t>(seed), static_cast<std::uint32_t>(draw),
                                          static_cast<std::uint32_t>(row), static_cast<std::uint64_t>(last));
            const auto top = static_cast<std::uint64_t>(last);
            if (!take(detail::multiply(bits, top + 1).high)) take(top);
        }
        std::size_t filled = 0;
        for (std::size_t word = 0; word < taken.size(); ++word) {
            for (std::uint64_t rest = taken[word]; rest != 0; rest &= rest - 1) {
                const std::uint64_t position = word * 64 + static_cast<std::uint64_t>(std::countr_zero(rest));
                numbers[filled++].value = static_cast<std::int64_t>(position << 32);
            }
        }
    }

private:
    constexpr void expect_range(std::int64_t positions) const {
        RW_EXPECTS(positions <= range, "randomized_sorted: range {} is smaller than {} positions", range, positions);
    }
};

}  // namespace ropewalk
