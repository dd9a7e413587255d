// One call in plain data: what a kernel of any instruction set takes.
#pragma once

#include <cstdint>

#include "ropewalk/core/positions.hpp"
#include "ropewalk/core/table.hpp"
#include "ropewalk/core/view.hpp"

namespace ropewalk::cpu {

/// Which way a call turns.
enum class direction : std::uint8_t {
    forward,          ///< encode
    inverse,          ///< what forward did is undone, magnitudes too
    adjoint,          ///< the transposed map, for gradients: the angle is negated, the magnitudes stay
    inverse_adjoint,  ///< that of inverse: the angle stays, the magnitudes are undone
};

/// Positions as a kernel reads them: checked, ragged batches spread out.
struct position_source {
    positions::kind source = positions::kind::offset;  ///< offset, ids32, ids64 or fixed
    std::int64_t first = 0;
    const void* data = nullptr;
    std::int64_t stride_row = 0;
    std::int64_t stride_axis = 0;  ///< from one position of a token to the next, 0 where one serves all
};

/// The index of a token; of a number between two tokens, the lower one.
RW_INLINE std::int64_t index_at(const position_source& where, std::int64_t row, std::int64_t token) {
    const std::int64_t at = row * where.stride_row + token;
    switch (where.source) {
        case positions::kind::ids32:
            return static_cast<const std::int32_t*>(where.data)[at];
        case positions::kind::ids64:
            return static_cast<const std::int64_t*>(where.data)[at];
        case positions::kind::fixed:
            return static_cast<const fixed_position*>(where.data)[at].value >> 32;
        default:
            return where.first + token;
    }
}

/// Position number `axis` of every token.
RW_INLINE position_source on_axis(position_source where, std::int64_t axis) {
    const std::int64_t entries = axis * where.stride_axis;
    if (where.source == positions::kind::ids32) where.data = static_cast<const std::int32_t*>(where.data) + entries;
    if (where.source == positions::kind::ids64) where.data = static_cast<const std::int64_t*>(where.data) + entries;
    return where;
}

/// What lies between that index and the token's number, in 2^-32 tokens.
RW_INLINE std::uint64_t fraction_at(const position_source& where, std::int64_t row, std::int64_t token) {
    if (where.source != positions::kind::fixed) return 0;
    const std::int64_t at = row * where.stride_row + token;
    return static_cast<std::uint64_t>(static_cast<const fixed_position*>(where.data)[at].value) & 0xffffffffU;
}

/// Where the data of a call fits: it decides the order of the loops.
enum class footprint : std::uint8_t { l2, l3, memory };

/// One encoding at one set of positions.
struct turn_term {
    const std::uint64_t* steps = nullptr;
    const std::uint64_t* decay = nullptr;  ///< null: magnitudes stay
    std::int64_t centre = 0;
    std::int64_t axes = 1;  ///< positions a token; steps is [axes, pairs]
    position_source where;
};

struct job {
    tensor q_in, q_out, k_in, k_out;  ///< data null: absent
    std::int64_t rotary_offset = 0;
    std::int64_t pairs = 0;

    turn_term turn;
    turn_term unturn;  ///< steps null unless keys leave another encoding
    bool negate_angle = false;
    bool decays = false;  ///< q × 2^(−x), k × 2^x, or the other way round
    bool swap_decay = false;
    float factor = 1;  ///< multiplies cosines and sines

    cos_sin_table table;         ///< in place of `turn` where it exists
    std::int64_t tile = 1;       ///< tokens whose queries are turned before their keys
    bool heads_outside = false;  ///< the tokens of one head are neighbours: one head after the other
    footprint size = footprint::memory;

    [[nodiscard]] std::int64_t batch() const { return q_in.exists() ? q_in.batch : k_in.batch; }
    [[nodiscard]] std::int64_t tokens() const { return q_in.exists() ? q_in.tokens : k_in.tokens; }
    /// Floats from the rows of one token to those of the next: [cos, sin], for keys too where magnitudes differ.
    [[nodiscard]] std::int64_t row_stride() const;
};

/// Floats of one row in any block order, padded so that a register may be read at its end; whole cache lines.
constexpr std::int64_t padded_row(std::int64_t pairs) { return (2 * pairs + 31) / 16 * 16; }

inline std::int64_t job::row_stride() const { return padded_row(pairs) * (decays ? 4 : 2); }

/// Scratch of a thread: cos, sin and magnitude of one token in pair order, then from here the rows of a tile.
constexpr std::int64_t first_row(const job& work) { return 4 * padded_row(work.pairs); }
inline std::int64_t scratch_floats(const job& work) { return first_row(work) + work.row_stride() * work.tile; }

/// Turns the tokens [begin, end), counted through the batch.
using range_function = void (*)(const job& work, std::int64_t begin, std::int64_t end, float* scratch);

}  // namespace ropewalk::cpu
