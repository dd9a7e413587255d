// Parameters of a validated rotation, common to the CPU and to GPUs.
#pragma once

#include <cstdint>

#include "ropewalk/core/table.hpp"
#include "ropewalk/core/view.hpp"
#include "ropewalk/rotation/position_reader.hpp"

namespace ropewalk {

/// One encoding at one set of positions.
struct rotation_term {
    const std::uint64_t* steps = nullptr;            ///< [axes, pairs]; null: no such term
    const std::uint64_t* magnitude_rates = nullptr;  ///< [pairs]; null: the magnitude is 1
    std::int64_t centre = 0;                         ///< the position whose magnitude is 1
    position_reader positions{};
};

/// A validated rotation, independent of the backend. The caller's encodings, positions and table outlive it.
struct rotate_params {
    tensor q_in{}, k_in{}, q_out{}, k_out{};  ///< data null: absent
    std::int64_t rotary_offset = 0;           ///< elements of a head in front of the rotary part
    std::int64_t pairs = 0;

    rotation_term target{};
    rotation_term source{};  ///< of a re-rotation: its angle is subtracted, its magnitude divided out
    bool negate_angle = false;
    bool has_magnitude = false;  ///< q is scaled by 2^(−x) and k by 2^x
    bool invert_magnitude = false;
    float factor = 1;       ///< multiplies cosines and sines
    double factor_f64 = 1;  ///< the same for tensors of f64

    cos_sin_table table{};  ///< replaces `target` where it exists

    /// The queries, or the keys where there are no queries: batch, tokens and type are common to both.
    [[nodiscard]] const tensor& any() const { return q_in.exists() ? q_in : k_in; }
    [[nodiscard]] std::int64_t batch() const { return any().batch; }
    [[nodiscard]] std::int64_t tokens() const { return any().tokens; }
};

}  // namespace ropewalk
