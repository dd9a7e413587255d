// A call and the order of its loops: what a kernel of any instruction set takes.
#pragma once

#include <cstdint>

#include "ropewalk/rotation/params.hpp"

namespace ropewalk::cpu {

using ropewalk::direction;

/// Where the data of a call fits: it decides the order of the loops.
enum class footprint : std::uint8_t { l2, l3, memory };

/// Of a call that reads so many bytes.
constexpr footprint footprint_of(std::int64_t bytes) {
    constexpr std::int64_t mebi = 1024 * 1024;
    return bytes <= mebi ? footprint::l2 : bytes <= 16 * mebi ? footprint::l3 : footprint::memory;
}

struct job : call {
    std::int64_t tile = 1;  ///< tokens whose rows are made together: their queries are turned before their keys
    std::int64_t alternating_heads = 0;  ///< or so many heads of two streams in turn, of keys behind their queries
    bool heads_major = false;            ///< the tokens of one head are neighbours: a few heads after the others
    footprint size = footprint::memory;
    bool streaming = false;  ///< results go straight to memory: see most_streamed_bytes

    /// Floats from the rows of one token to those of the next: [cos, sin], for keys too where magnitudes differ.
    [[nodiscard]] std::int64_t row_stride() const;
};

/// Floats of one row in any block order, padded so that a register may be read at its end; whole cache lines.
constexpr std::int64_t padded_row(std::int64_t pairs) { return (2 * pairs + 31) / 16 * 16; }

inline std::int64_t job::row_stride() const { return padded_row(pairs) * (has_magnitude ? 4 : 2); }

/// Out of cache queries and keys, or the two halves of one tensor alone, are turned in turn by so much. Two streams,
/// each in the order of its addresses, keep more of the memory busy than one where pages are small (measured on pages
/// of 4 KiB, 4096 tokens, ratio to the scale: f32 0.97 to 1.04, bf16 0.89 to 1.04, with AVX2 f16 0.85 to 1.07; on pages
/// of 2 MiB 0.97 to 0.94, 0.91 to 0.92, 0.90 to 0.99), which is lost where each switch leaves a page behind.
inline constexpr std::int64_t alternating_bytes = 2048;

/// The longest head that is sent past the caches; like the addresses and strides of the output it must be whole lines.
inline constexpr std::int64_t most_streamed_bytes = 2048;
inline constexpr std::int64_t line_bytes = 64;

/// Scratch of a thread: cos, sin and magnitude of one token in pair order, then from here the rows of a tile.
constexpr std::int64_t first_row(const job& work) { return 4 * padded_row(work.pairs); }
inline std::int64_t scratch_floats(const job& work) { return first_row(work) + work.row_stride() * work.tile; }

/// Turns the tokens [begin, end), counted through the batch.
using range_function = void (*)(const job& work, std::int64_t begin, std::int64_t end, float* scratch);

}  // namespace ropewalk::cpu
