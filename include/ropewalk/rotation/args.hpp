// Arguments of a rotation, as the caller gives them.
#pragma once

#include <cstdint>

#include "ropewalk/core/positions.hpp"
#include "ropewalk/core/table.hpp"
#include "ropewalk/core/view.hpp"
#include "ropewalk/encoding.hpp"

namespace ropewalk {

/// Direction of a rotation.
enum class direction : std::uint8_t {
    forward,          ///< encodes
    inverse,          ///< undoes forward, magnitudes included
    adjoint,          ///< the transposed map, for gradients: negates the angle and keeps the magnitude
    inverse_adjoint,  ///< the transposed inverse: keeps the angle and undoes the magnitude
};

/// A rotation or a re-rotation as the caller asks for it. Nothing in it is validated: see make_params().
struct rotate_args {
    layout_kind layout = layout_kind::half_split;
    tensor q_in{}, k_in{}, q_out{}, k_out{};  ///< data null: absent; in place where input and output are the same
    const Encoding* target = nullptr;
    positions target_positions{};
    const Encoding* source = nullptr;  ///< re-rotation of cached keys: the encoding that they have now
    positions source_positions{};
    ropewalk::direction direction = ropewalk::direction::forward;
    cos_sin_table table{};  ///< replaces the cosines and sines of `target` where it exists

    /// The queries, or the keys where there are no queries: batch, tokens and type are common to both.
    [[nodiscard]] const tensor& any() const { return q_in.exists() ? q_in : k_in; }
};

/// Arguments of a rotation. Tensors whose data is null are absent; in place where input and output are the same.
inline rotate_args rotation_args(layout_kind layout, const tensor& q, const tensor& k, const tensor& q_out,
                                 const tensor& k_out, const Encoding& encoding, const positions& positions,
                                 direction direction, const cos_sin_table& table) {
    return {.layout = layout,
            .q_in = q,
            .k_in = k,
            .q_out = q_out,
            .k_out = k_out,
            .target = &encoding,
            .target_positions = positions,
            .direction = direction,
            .table = table};
}

/// Arguments of a re-rotation of cached keys from one encoding and its positions to another.
inline rotate_args rerotation_args(layout_kind layout, const tensor& k, const tensor& k_out, const Encoding& source,
                                   const positions& source_positions, const Encoding& target,
                                   const positions& target_positions) {
    return {.layout = layout,
            .k_in = k,
            .k_out = k_out,
            .target = &target,
            .target_positions = target_positions,
            .source = &source,
            .source_positions = source_positions};
}

}  // namespace ropewalk
