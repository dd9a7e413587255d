// Parameters of a fused CPU kernel.
#pragma once

#include "ropewalk/cpu/rotate_kernel.hpp"
#include "ropewalk/rotation/fused_params.hpp"

namespace ropewalk::cpu {

/// The heads of q, k or v, with their norm and their destinations.
struct fused_side {
    tensor in{};              ///< data null: absent
    cache_tensor by_token{};  ///< the output: its pages are batch rows, and the entries of a page tokens
    cache_tensor cache{};
    head_norm norm{};
    bool rotates = false, is_key = false;
    bool keeps_type = false;  ///< no norm, and every destination has the element type of the input
};

/// A validated fused call with its loops. The fields of `rotation` without a destination of their own are unspecified.
struct fused_params {
    rotate_params rotation{};
    fused_side sides[3]{};  ///< q, k and v
    slot_reader slots{};
    const rotate_kernel* typed = nullptr;    ///< of the element type
    const rotate_kernel* floats = nullptr;   ///< of float and the same layout
    float* rows = nullptr;                   ///< prepared_row() of every token; null: the kernel makes them
    std::int64_t batch = 0, row_tokens = 0;  ///< 0 where there are no elements
    std::int64_t bytes = 0;                  ///< that the call reads

    /// The kernel whose block order a row has.
    [[nodiscard]] RW_INLINE const rotate_kernel& arranging() const {
        return typed->arrange != nullptr ? *typed : *floats;
    }
};

namespace detail {

/// Heads that a kernel holds as floats at a time fill about 8 KiB, so that they stay in L1 with their sources.
inline constexpr std::int64_t held_floats = 2048;

/// Floats per held head, in whole cache lines.
constexpr std::int64_t held_head(std::int64_t head_dim) { return (head_dim + 15) / 16 * 16; }
constexpr std::int64_t heads_at_once(std::int64_t head_dim) {
    return held_head(head_dim) >= held_floats ? 1 : held_floats / held_head(head_dim);
}
RW_INLINE std::int64_t head_scratch(const fused_side& side) {
    return side.in.exists() && !side.keeps_type ? held_head(side.in.head_dim) * heads_at_once(side.in.head_dim) : 0;
}
RW_INLINE std::int64_t weight_scratch(const fused_side& side) {
    return side.norm.weight == nullptr ? 0 : held_head(side.in.head_dim);
}

/// Floats of a cos_sin row: in the order of the pairs, then in that of the blocks of a kernel.
RW_INLINE std::int64_t prepared_row(const rotate_params& params) { return first_row(params) + params.row_floats(); }

/// Scratch floats of a thread: a cos_sin row, the weights of both norms, then the held heads.
RW_INLINE std::int64_t fused_scratch(const fused_params& params) {
    std::int64_t heads = 0, weights = 0;
    for (const fused_side& side : params.sides) {
        heads = head_scratch(side) > heads ? head_scratch(side) : heads;
        weights += weight_scratch(side);
    }
    return prepared_row(params.rotation) + weights + heads;
}

}  // namespace detail

/// Executes a fused call on the tokens [begin, end), counted through the batch.
using fused_function = void (*)(const fused_params& params, std::int64_t begin, std::int64_t end, float* scratch);

}  // namespace ropewalk::cpu
