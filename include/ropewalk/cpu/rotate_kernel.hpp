// Kernel of a rotation as plain data, for one element type, layout and instruction set.
#pragma once

#include <cstddef>

#include "ropewalk/cpu/params.hpp"

namespace ropewalk::cpu::detail {

/// The rotary parts of some heads of one token. Strides are in bytes.
struct head_span {
    const std::byte* in;
    std::byte* out;
    std::int64_t count;
    std::int64_t in_stride, out_stride;
};

/// Rotates heads by the cos_sin row of their token.
using head_loop = void (*)(std::int64_t pairs, const float* row, const head_span& heads, prefetch_range prefetch);

}  // namespace ropewalk::cpu::detail

namespace ropewalk::cpu {

/// The kernel of one element type, layout and instruction set, for any number of pairs. The traversals call its loops,
/// so that they are compiled once per instruction set.
struct rotate_kernel {
    kernel_function run;           ///< rotates a range of tokens
    detail::head_loop by_columns;  ///< registers keep cosines and sines of some pairs while the heads pass
    detail::head_loop by_heads;    ///< head after head in address order; each reads the row again
    void (*make_rows)(const rotate_kernel&, const rotate_params&, std::int64_t batch_row, std::int64_t token,
                      float* rows, float* scratch);
    /// Brings cosines and sines into the order of the blocks. Null where that is the order of the pairs.
    void (*arrange)(std::int64_t pairs, float* to_cos, float* to_sin, const float* cos, const float* sin);
    std::int64_t element_bytes;
    std::int64_t block_pairs;  ///< pairs per block, a power of 2
    std::int64_t max_held;     ///< blocks whose cosines and sines fit into registers
    bool interleaved;

    /// Returns whether registers hold the whole row, so that either loop order is address order.
    [[nodiscard]] RW_INLINE bool holds_row(std::int64_t pairs) const {
        const std::int64_t limit = (max_held < 4 ? max_held : 4) * block_pairs;
        return (pairs <= limit && (pairs & (block_pairs - 1)) == 0) || pairs == max_held * block_pairs;
    }
};

}  // namespace ropewalk::cpu
