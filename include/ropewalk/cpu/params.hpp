// Parameters of a CPU kernel: the validated rotation and the choice of its loops.
#pragma once

#include <cstdint>

#include "ropewalk/cpu/tuning.hpp"
#include "ropewalk/rotation/params.hpp"

namespace ropewalk::cpu {

/// The smallest memory that holds the data of a call.
enum class footprint : std::uint8_t { l2, l3, memory };

constexpr footprint footprint_of(std::int64_t bytes, const tuning_profile& tuning) {
    return bytes <= tuning.l2_bytes ? footprint::l2 : bytes <= tuning.l3_bytes ? footprint::l3 : footprint::memory;
}

/// Bytes that a loop over heads prefetches: `length` of them, `ahead` bytes from the head in work.
struct prefetch_range {
    std::int64_t ahead = 0, length = 0;
};

/// Order of the loops over tokens and heads. One file in cpu/traversal/ per value.
enum class traversal : std::uint8_t {
    per_token,    ///< all heads of a token, token after token
    heads_major,  ///< tokens of one head are neighbours in memory: a few heads at a time over a tile of tokens
    alternating,  ///< out of cache: some queries, then the keys that belong to them
    streaming,    ///< out of cache and out of place: non-temporal stores
};

/// Loops of a rotation. Made by choose_loop().
struct loop_choice {
    traversal order = traversal::per_token;
    footprint size = footprint::memory;
    std::int64_t tile = 1;               ///< tokens whose cos_sin rows are made together: queries first, then keys
    std::int64_t alternating_heads = 0;  ///< key heads (or heads of the only tensor) per turn of `alternating`
    std::int64_t group = 1;              ///< heads that share the rows of a tile of `heads_major`
    std::int64_t bytes_per_thread = 1;
    prefetch_range columns_prefetch{}, heads_prefetch{};  ///< of the two loops over heads
    bool by_heads = false;                                ///< takes head after head even where registers hold a row
    bool heads_major = false;                             ///< the stride of a head exceeds that of a token
    bool shared_row = false;  ///< all tokens have one position, and therefore one cos_sin row
};

struct rotate_params : ropewalk::rotate_params {
    loop_choice loop;

    /// Floats per cos_sin row of one token: [cos, sin], twice where queries and keys have different magnitudes.
    [[nodiscard]] std::int64_t row_floats() const;
    /// Floats from the row of one token to that of the next.
    [[nodiscard]] std::int64_t row_stride() const;
};

/// Floats of the cosines of one token in any block order, padded to whole cache lines so that a register may be read at
/// the end.
constexpr std::int64_t padded_row(std::int64_t pairs) { return (2 * pairs + 31) / 16 * 16; }

RW_INLINE std::int64_t rotate_params::row_floats() const { return padded_row(pairs) * (has_magnitude ? 4 : 2); }
RW_INLINE std::int64_t rotate_params::row_stride() const { return loop.shared_row ? 0 : row_floats(); }

/// Scratch floats of a thread: the row of one token in pair order, then the rows of a tile in block order.
constexpr std::int64_t first_row(const rotate_params& params) { return 4 * padded_row(params.pairs); }
RW_INLINE std::int64_t scratch_floats(const rotate_params& params) {
    return first_row(params) + params.row_floats() * params.loop.tile;
}

/// Rotates the tokens [begin, end), counted through the batch.
using kernel_function = void (*)(const rotate_params& params, std::int64_t begin, std::int64_t end, float* scratch);

}  // namespace ropewalk::cpu
