// Randomized positions from Giraffe, for training.
#pragma once

#include "ropewalk/core/random.hpp"
#include "ropewalk/policy/concepts.hpp"

namespace ropewalk {

/// The token at index i gets position t_{i+1} · n / max(t_n, n), where t is the running sum of steps drawn from
/// U(epsilon, 2). Positions ascend and never exceed n (Giraffe, arXiv 2308.10882, §4.5 and its code, where epsilon is
/// 0).
///
/// n is `length`, else the sequence length of the geometry, else the number of tokens of the call. Every batch row has
/// its own numbers. Increase `draw` by one per forward pass. The numbers are the same for any number of threads, on CPU
/// and GPU.
struct Randomized {
    std::int64_t length = 0;  ///< n, tokens; below 2^30
    double epsilon = 0;       ///< smallest step, tokens, in [0, 2]
    std::int64_t seed = 0;
    std::int64_t draw = 0;  ///< index of the forward pass

    /// Bound of n: the sum of n steps of up to 2 tokens must fit into a fixed_position.
    static constexpr std::int64_t max_length = std::int64_t{1} << 30;

    static constexpr std::string_view name = "randomized";
    static constexpr std::string_view about = "Ascending random positions that never exceed the length, for training.";
    using integer = parameter<Randomized, std::int64_t>;
    static constexpr auto parameters = std::tuple{
        integer{"length", &Randomized::length}, parameter<Randomized, double>{"epsilon", &Randomized::epsilon},
        integer{"seed", &Randomized::seed}, integer{"draw", &Randomized::draw}};

    constexpr void validate(const Geometry& geometry = {}) const {
        RW_EXPECTS(length >= 0 && length < max_length, "randomized: length must lie in [0, 2^30), got {}", length);
        RW_EXPECTS(length > 0 || geometry.sequence_length < max_length,
                   "randomized: sequence_length is used as the length and must be below 2^30, got {}",
                   geometry.sequence_length);
        RW_EXPECTS(detail::is_finite(epsilon) && epsilon >= 0 && epsilon <= 2,
                   "randomized: epsilon must lie in [0, 2], got {}", epsilon);
        RW_EXPECTS(draw >= 0 && draw < (std::int64_t{1} << 32), "randomized: draw must lie in [0, 2^32), got {}", draw);
    }
    [[nodiscard]] constexpr std::int64_t stated_tokens() const { return length; }
    static constexpr Randomized example() { return {.length = 16384, .seed = 1}; }

    /// Draws numbers.size() = n < 2^30 positions. The arithmetic is in integers of 2^-32 tokens, so the sums are exact.
    constexpr void draw_positions(std::uint64_t row, std::span<fixed_position> numbers) const {
        RW_EXPECTS(numbers.size() < static_cast<std::size_t>(max_length),
                   "randomized: the number of positions must be below 2^30, got {}", numbers.size());
        const auto smallest = static_cast<std::uint64_t>(make_fixed_position(real(epsilon)).value);
        const std::uint64_t range = (std::uint64_t{2} << 32) - smallest;
        std::uint64_t sum = 0;
        for (std::size_t i = 0; i < numbers.size(); ++i) {
            const auto bits = random_bits(static_cast<std::uint64_t>(seed), static_cast<std::uint32_t>(draw),
                                          static_cast<std::uint32_t>(row), i);
            sum += smallest + detail::multiply(range, bits).high;
            numbers[i].value = static_cast<std::int64_t>(sum);
        }
        const std::uint64_t limit = static_cast<std::uint64_t>(numbers.size()) << 32;
        if (sum <= limit) return;
        const std::uint64_t ratio = detail::divide({limit, 0}, sum);  // n / t_n in units of 2^-64, rounded down
        for (auto& number : numbers) {
            number.value =
                static_cast<std::int64_t>(detail::multiply(static_cast<std::uint64_t>(number.value), ratio).high);
        }
    }
};

}  // namespace ropewalk
