// Tuning profiles of the CPU kernels: thresholds and traversals per kind of machine. docs/performance.md has tables.
#pragma once

#include <cstdint>
#include <string_view>

#include "ropewalk/core/compiler.hpp"

namespace ropewalk::cpu {

namespace tuning {

inline constexpr std::int64_t kibi = 1024, mebi = 1024 * kibi;

/// Bytes of a cache line.
inline constexpr std::int64_t line_bytes = 64;

/// Bytes of rotated heads that a buffer in L1 holds before streaming stores write them. Head by head takes up to 1.1 of
/// the time. A longer head is not streamed.
inline constexpr std::int64_t streamed_bytes = 4 * kibi;

/// Tokens of a table whose rows are written together: starting a run of 16 costs 7 %, and 64 rows fill L1.
inline constexpr std::int64_t table_run_tokens = 64;

}  // namespace tuning

/// Thresholds and traversals for one kind of machine. They change the time of a call and no bit of its result.
///
/// The measurements in the comments are of Zen 4 unless they say otherwise, as ratios to a scale of the same bytes.
struct tuning_profile {
    std::string_view name;

    /// Calls that read at most this many bytes are tuned for L2, or for L3: the sizes of the caches, with room for
    /// other data. Larger calls are tuned for memory.
    std::int64_t l2_bytes = tuning::mebi, l3_bytes = 16 * tuning::mebi;

    /// A call has one thread per this many bytes. Waking a thread costs 1.1 to 1.5 µs, more than the rotation of
    /// 128 KiB.
    std::int64_t bytes_per_thread = 128 * tuning::kibi;

    /// Bytes between an access and its prefetch from L2 to L1. 0: no prefetch. A call of 16 tokens takes 0.94 to 0.96
    /// of the time in f32, 0.93 to 1.0 in f16 and bf16; the same prefetch from L3 costs up to 20 %.
    std::int64_t l2_prefetch_bytes = 1024;

    /// Bytes between a head in memory and its prefetch. 0: no prefetch. A page is the reach of the hardware prefetcher.
    std::int64_t memory_prefetch_bytes = 4096;
    /// 1: prefetches every line of a head in memory; 0: one line, to hide the TLB miss. Every line gained nothing in 24
    /// patterns on Zen 4, and on Zen 3 raised bf16 half_split from 0.65 to 1.0.
    std::int64_t memory_prefetches_lines = 0;
    /// 1: takes head after head in memory, even where registers hold the cosines and sines of a whole head.
    std::int64_t memory_by_heads = 0;

    /// Bytes of queries, then of keys, that the alternating traversal takes in turn from memory. 0: no alternation.
    /// Ratio without and with, 4096 tokens, pages of 4 KiB: f32 0.97 and 1.04, bf16 0.89 and 1.04, f16 under AVX2 0.85
    /// and 1.07. Pages of 2 MiB: f32 0.97 and 0.94, bf16 0.91 and 0.92, f16 0.90 and 0.99. Alternating by whole tokens
    /// (20 KiB) takes up to 40 % longer.
    std::int64_t alternating_bytes = 2048;

    /// Tokens whose queries are rotated before their keys, for data larger than L2, and larger than L3. From L3, 256
    /// tokens take 0.96 of the time of 64 with AVX2, and 0.99 with AVX-512.
    std::int64_t l3_tile_tokens = 256, memory_tile_tokens = 128;

    /// Floats of cos_sin rows that one heads-major tile keeps in L2 (576 KiB: 512 tokens of 64 pairs), and the fewest
    /// tokens of a tile. With tiles of 16 tokens and two heads, 4096 tokens ran at 0.65 to 0.77; now at 0.90 to 1.07.
    std::int64_t heads_major_tile_floats = 144 * tuning::kibi, heads_major_tile_tokens = 16;

    /// Heads that share the rows of a heads-major tile in cache, and in memory. 4096 tokens of f32: one head 0.56, two
    /// 0.72, eight 1.0, sixteen 0.66.
    std::int64_t heads_major_group = 4, heads_major_group_from_memory = 8;

    /// 1: writes an output in memory by non-temporal stores, unless its pages are fresh. An ordinary store reads the
    /// line that it overwrites: a copy of 84 MB ran at 19 GB/s with ordinary stores, at 35 GB/s with these.
    std::int64_t streaming_stores = 1;

    /// 1: rotates f16 in cache by registers of 256 bits, even where the machine has 512. Zen 4 converts 512 bits in 1.3
    /// of the time of 2 · 256 bits.
    std::int64_t f16_cached_by_256_bits = 0;
};

inline namespace RW_ISA {

/// A number of a profile: its name in a profile file, and its range. The ranges of tiles bound the scratch memory of a
/// thread, which holds the cos_sin rows of one tile.
struct tuning_field {
    std::string_view name;
    std::int64_t tuning_profile::*value;
    std::int64_t least, most;
};

inline constexpr tuning_field tuning_fields[] = {
    {"l2_bytes", &tuning_profile::l2_bytes, 0, std::int64_t{1} << 40},
    {"l3_bytes", &tuning_profile::l3_bytes, 0, std::int64_t{1} << 40},
    {"bytes_per_thread", &tuning_profile::bytes_per_thread, 1, std::int64_t{1} << 40},
    {"l2_prefetch_bytes", &tuning_profile::l2_prefetch_bytes, 0, tuning::mebi},
    {"memory_prefetch_bytes", &tuning_profile::memory_prefetch_bytes, 0, tuning::mebi},
    {"memory_prefetches_lines", &tuning_profile::memory_prefetches_lines, 0, 1},
    {"memory_by_heads", &tuning_profile::memory_by_heads, 0, 1},
    {"alternating_bytes", &tuning_profile::alternating_bytes, 0, tuning::mebi},
    {"l3_tile_tokens", &tuning_profile::l3_tile_tokens, 1, 4096},
    {"memory_tile_tokens", &tuning_profile::memory_tile_tokens, 1, 4096},
    {"heads_major_tile_floats", &tuning_profile::heads_major_tile_floats, 1, tuning::mebi},
    {"heads_major_tile_tokens", &tuning_profile::heads_major_tile_tokens, 1, 4096},
    {"heads_major_group", &tuning_profile::heads_major_group, 1, 4096},
    {"heads_major_group_from_memory", &tuning_profile::heads_major_group_from_memory, 1, 4096},
    {"streaming_stores", &tuning_profile::streaming_stores, 0, 1},
    {"f16_cached_by_256_bits", &tuning_profile::f16_cached_by_256_bits, 0, 1},
};

/// The profiles of this version. `zen4` was measured as a whole, and the traversal of `zen3` on one thread from memory.
/// The others take the traversal of `zen3`, which loses little on Zen 4: its worst ratio from memory is 0.99 with
/// AVX-512 and 0.92 with AVX2, that of `zen4` 1.05 and 0.94. On Zen 3, bf16 has 0.61 by the traversal of `zen4`.
inline constexpr tuning_profile tuning_profiles[] = {
    {.name = "zen3", .l2_bytes = tuning::mebi / 2, .memory_prefetches_lines = 1, .memory_by_heads = 1},
    {.name = "zen4", .f16_cached_by_256_bits = 1},
    {.name = "zen5", .memory_prefetches_lines = 1, .memory_by_heads = 1},
    {.name = "skylake_avx512", .memory_prefetches_lines = 1, .memory_by_heads = 1},  // every Intel with AVX-512
    {.name = "generic_avx512", .memory_prefetches_lines = 1, .memory_by_heads = 1},
    {.name = "generic_avx2", .l2_bytes = tuning::mebi / 2, .memory_prefetches_lines = 1, .memory_by_heads = 1},
    {.name = "neon", .l2_bytes = tuning::mebi / 2, .memory_prefetches_lines = 1, .memory_by_heads = 1},
    {.name = "generic", .l2_bytes = tuning::mebi / 2, .memory_prefetches_lines = 1, .memory_by_heads = 1},
};

}  // namespace RW_ISA
}  // namespace ropewalk::cpu
