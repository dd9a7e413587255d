/// @file  Trials of every kind of positions, for whoever has a problem_of(trial, numbers).
#pragma once

#include <limits>
#include <span>

#include "support/catch.hpp"
#include "support/rotation_trial.hpp"

namespace test {

/// The range of 32-bit ids.
inline constexpr std::int64_t least_id = std::numeric_limits<std::int32_t>::min(),
                              most_id = std::numeric_limits<std::int32_t>::max();

/// Ids of 32 and of 64 bits, a position a token, and one row of them for every batch row.
template <class Trial>
void check_ids(Trial one, random& numbers) {
    std::vector<std::int32_t> narrow;
    std::vector<std::int64_t> wide;
    std::vector<oracle::place> far;
    for (std::int64_t token = 0; token < tokens_of(one); ++token) {
        narrow.push_back(static_cast<std::int32_t>(numbers.bits()));
        wide.push_back(numbers.integer(-(std::int64_t{1} << 33), std::int64_t{1} << 33));
        one.places.push_back({narrow.back(), 0}), far.push_back({wide.back(), 0});
    }
    one.where = ropewalk::ids(std::span<const std::int32_t>(narrow), one.q.batch);
    CHECK(problem_of(one, numbers) == "");
    one.where = ropewalk::ids(std::span<const std::int64_t>(wide), one.q.batch), one.places = far;
    CHECK(problem_of(one, numbers) == "");

    wide.resize(static_cast<std::size_t>(one.q.tokens)), one.places.clear();
    one.where = ropewalk::ids(std::span<const std::int64_t>(wide));
    for (std::int64_t row = 0; row < one.q.batch; ++row)
        for (const std::int64_t id : wide) one.places.push_back({id, 0});
    CHECK(problem_of(one, numbers) == "");
}

/// Positions between `least` and `most` tokens, and between the tokens.
template <class Trial>
void check_fractions(Trial one, random& numbers, std::int64_t least, std::int64_t most) {
    std::vector<ropewalk::fixed_position> fixed;
    for (std::int64_t token = 0; token < tokens_of(one); ++token) {
        const std::int64_t whole = numbers.integer(least, most);
        const auto fraction = static_cast<std::uint32_t>(numbers.bits());
        fixed.push_back({whole * (std::int64_t{1} << 32) + fraction});
        one.places.push_back({whole, fraction});
    }
    one.where = ropewalk::ids(std::span<const ropewalk::fixed_position>(fixed), one.q.batch);
    CHECK(problem_of(one, numbers) == "");
}

/// A ragged batch of so many sequences at the most, empty ones among them, whose starts have 32 or 64 bits.
template <class Trial>
void check_ragged(Trial one, random& numbers, std::int64_t most_sequences, std::int64_t most_tokens) {
    std::vector<std::int64_t> starts{0};
    const std::int64_t first = numbers.integer(-100, 1000000);
    for (std::int64_t sequence = numbers.integer(1, most_sequences); sequence > 0; --sequence) {
        const std::int64_t length = numbers.integer(0, most_tokens);
        for (std::int64_t token = 0; token < length; ++token) one.places.push_back({first + token, 0});
        starts.push_back(starts.back() + length);
    }
    if (one.places.empty()) return;
    one.q.batch = 1, one.q.tokens = starts.back();
    one.where = ropewalk::cu_seqlens(std::span<const std::int64_t>(starts), first);
    CHECK(problem_of(one, numbers) == "");
    const std::vector<std::int32_t> narrow(starts.begin(), starts.end());
    one.where = ropewalk::cu_seqlens(std::span<const std::int32_t>(narrow), first);
    CHECK(problem_of(one, numbers) == "");
}

/// Starts of sequences of 9 tokens which make no sense.
inline std::vector<std::vector<std::int64_t>> senseless_starts() {
    return {{5, 3, -100}, {std::numeric_limits<std::int64_t>::min(), 1}, {0, 2, 1, 900}};
}

/// Pairs which follow one of three positions of a token each.
inline twin three_axes() {
    return {ropewalk::make_encoding({.head_dim = 128, .base = 1e6}, "mrope:[16,24,24]"),
            oracle::encode(oracle::plain(1e6, 128))};
}

/// A trial by three_axes().
template <class Trial>
void check_axes(Trial one, random& numbers) {
    const auto tokens = static_cast<std::size_t>(tokens_of(one));
    std::vector<std::int32_t> ids(3 * tokens);
    for (std::int32_t& id : ids) id = static_cast<std::int32_t>(numbers.integer(-5000, 500000));
    one.where = ropewalk::axis_ids(std::span<const std::int32_t>(ids), one.q.batch);
    one.map = [&](std::int64_t pair, std::int64_t token, oracle::role /*who*/) {
        const std::size_t axis = pair < 16 ? 0 : pair < 40 ? 1 : 2;
        return oracle::cos_sin(one.by.exact.turns[static_cast<std::size_t>(pair)],
                               {ids[axis * tokens + static_cast<std::size_t>(token)], 0});
    };
    CHECK(problem_of(one, numbers) == "");
}

/// Every direction of a trial, from an offset on.
template <class Trial>
void check_directions(Trial one, random& numbers) {
    using ropewalk::direction;
    for (const direction direction : {direction::forward, direction::inverse, direction::adjoint}) {
        one.options.direction = direction, one.in_place = numbers.coin();
        const std::int64_t first = numbers.integer(0, 4000);
        one.where = ropewalk::offset{first}, one.places = consecutive(one.q, first);
        CHECK(problem_of(one, numbers) == "");
    }
}

}  // namespace test
