// Positions of a prepared call: one integer per token, which changes from call to call.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "ropewalk/cpu/params.hpp"
#include "ropewalk/encoding.hpp"

namespace ropewalk::cpu {

/// Copies of the rates of an encoding, and the positions [batch, tokens] of the last call.
class prepared_positions {
public:
    /// For `tokens` tokens in each of `batch` rows of a call with these parameters.
    RW_INLINE prepared_positions(const Encoding& encoding, const rotate_params& params, std::int64_t batch,
                                 std::int64_t tokens)
        : steps_(encoding.steps),
          magnitude_rates_(encoding.magnitude_rates),
          entries_(static_cast<std::size_t>(batch * tokens)),
          tokens_(tokens) {
        const std::int64_t reach = encoding.reach(params.any().type);
        first_ = encoding.centre - reach, last_ = encoding.centre + reach;
        if (params.table.exists()) first_ = 0, last_ = params.table.rows - 1;
    }

    RW_INLINE prepared_positions(prepared_positions&&) noexcept = default;
    RW_INLINE prepared_positions& operator=(prepared_positions&&) noexcept = default;
    RW_INLINE ~prepared_positions() = default;  // declared, so that it leaves no symbol

    /// Refuses, with an error, what one integer per token does not describe.
    static RW_INLINE void check(const Encoding& encoding, const cos_sin_table& table) {
        RW_EXPECTS(!encoding.draw_positions, "'{}' draws its positions, which a prepared call does not support",
                   encoding.expression);
        RW_EXPECTS(!table.exists() || table.order == cos_sin_table::rows_are::by_index,
                   "a prepared call needs a table with one row per index, not per token");
    }

    /// Lets the parameters of a call read rates and positions of this object. Both stay where they are when it moves.
    RW_INLINE void bind(rotate_params& params) const {
        params.target.steps = steps_.data();
        if (!magnitude_rates_.empty()) params.target.magnitude_rates = magnitude_rates_.data();
        params.target.positions = {.kind = positions::kind::ids64, .data = entries_.data(), .stride_row = tokens_};
    }

    /// The range of positions that set() accepts: that of the table, or the one whose magnitudes fit the element type.
    [[nodiscard]] std::int64_t first() const { return first_; }
    [[nodiscard]] std::int64_t last() const { return last_; }

    /// The number of tokens of all batch rows.
    [[nodiscard]] std::int64_t count() const { return static_cast<std::int64_t>(entries_.size()); }

    [[nodiscard]] RW_INLINE bool accepts(std::int64_t position) const {
        return position >= first_ && position <= last_ - (tokens_ - 1);
    }
    [[nodiscard]] RW_INLINE bool accepts(std::span<const std::int64_t> positions) const {
        return positions.size() == entries_.size() &&
               std::all_of(positions.begin(), positions.end(),
                           [&](auto position) { return position >= first_ && position <= last_; });
    }

    /// Sets the tokens of each batch row to `position`, position + 1, …, or every token to its own position. Returns
    /// whether an entry changed.
    RW_INLINE bool set(std::int64_t position) {
        bool changed = false;
        for (std::int64_t i = 0; i < count(); i += tokens_)
            for (std::int64_t token = 0; token < tokens_; ++token)
                changed = set(i + token, position + token) || changed;
        return changed;
    }
    RW_INLINE bool set(std::span<const std::int64_t> positions) {
        bool changed = false;
        for (std::int64_t i = 0; i < count(); ++i) changed = set(i, positions[static_cast<std::size_t>(i)]) || changed;
        return changed;
    }

private:
    RW_INLINE bool set(std::int64_t i, std::int64_t position) {
        std::int64_t& entry = entries_[static_cast<std::size_t>(i)];
        const bool changed = entry != position;
        entry = position;
        return changed;
    }

    std::vector<std::uint64_t> steps_, magnitude_rates_;
    std::vector<std::int64_t> entries_;
    std::int64_t tokens_ = 1, first_ = 0, last_ = 0;
};

}  // namespace ropewalk::cpu
