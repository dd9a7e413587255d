// One call in plain data: what kernels take, on the CPU and on a GPU.
#pragma once

#include <cstdint>

#include "ropewalk/core/table.hpp"
#include "ropewalk/core/view.hpp"
#include "ropewalk/rotation/position_reader.hpp"

namespace ropewalk {

/// Which way a call turns.
enum class direction : std::uint8_t {
    forward,          ///< encode
    inverse,          ///< what forward did is undone, magnitudes too
    adjoint,          ///< the transposed map, for gradients: the angle is negated, the magnitudes stay
    inverse_adjoint,  ///< that of inverse: the angle stays, the magnitudes are undone
};

/// One encoding at one set of positions.
struct turn_term {
    const std::uint64_t* steps = nullptr;
    const std::uint64_t* magnitude_rates = nullptr;  ///< null: magnitudes stay
    std::int64_t centre = 0;
    std::int64_t axes = 1;  ///< positions a token; steps is [axes, pairs]
    position_source where;
};

/// A checked call, before anybody has decided how to run it.
struct call {
    tensor q_in, q_out, k_in, k_out;  ///< data null: absent
    std::int64_t rotary_offset = 0;
    std::int64_t pairs = 0;

    turn_term turn;
    turn_term unturn;  ///< steps null unless keys leave another encoding
    bool negate_angle = false;
    bool has_magnitude = false;  ///< q × 2^(−x), k × 2^x, or the other way round
    bool invert_magnitude = false;
    float factor = 1;  ///< multiplies cosines and sines

    cos_sin_table table;  ///< in place of `turn` where it exists

    /// Queries, or keys where there are none: what they share may be asked of either.
    [[nodiscard]] const tensor& any() const { return q_in.exists() ? q_in : k_in; }
    [[nodiscard]] std::int64_t batch() const { return any().batch; }
    [[nodiscard]] std::int64_t tokens() const { return any().tokens; }
};

}  // namespace ropewalk
