// Thresholds of the CPU kernels, each with its measurement. docs/performance.md has the tables.
#pragma once

#include <cstdint>

namespace ropewalk::cpu::tuning {

inline constexpr std::int64_t kibi = 1024, mebi = 1024 * kibi;

/// Bytes of a cache line.
inline constexpr std::int64_t line_bytes = 64;

/// Calls that read at most this many bytes are tuned for the second-level cache, or for the third. Sizes of the caches
/// of Zen 3 and Zen 4, with room for other data.
inline constexpr std::int64_t l2_bytes = mebi, l3_bytes = 16 * mebi;

/// Bytes per thread. Waking a thread costs 1.1 to 1.5 µs, more than the rotation of 128 KiB.
inline constexpr std::int64_t bytes_per_thread = 128 * kibi;

/// Lines between an access and its prefetch from L2 to L1. A call of 16 tokens takes 0.94
/// to 0.96 of the time in f32, 0.93 to 1.0 in f16 and bf16; the same prefetch from L3 costs up to 20 %.
inline constexpr std::int64_t l1_prefetch_lines = 16;

/// Bytes between a head in memory and the one line that is prefetched: a page, the reach of the hardware prefetcher.
/// Prefetching every line gained nothing on Zen 4 in 24 patterns.
inline constexpr std::int64_t l2_prefetch_bytes = 4096;

/// Bytes of queries, then of keys, that the alternating traversal takes in turn. Ratio to the scale without and with,
/// 4096 tokens, pages of 4 KiB: f32 0.97 and 1.04, bf16 0.89 and 1.04, f16 under AVX2 0.85 and 1.07. Pages of 2 MiB:
/// f32 0.97 and 0.94, bf16 0.91 and 0.92, f16 0.90 and 0.99. Alternating by whole tokens (20 KiB) takes up to 40 %
/// longer.
inline constexpr std::int64_t alternating_bytes = 2048;

/// Tokens whose queries are rotated before their keys, for data larger than L2, and larger than L3. Alternating after
/// about 2 MiB costs nothing.
inline constexpr std::int64_t l3_tile_tokens = 64, memory_tile_tokens = 128;

/// Floats of cos_sin rows that one heads-major tile keeps in L2 (576 KiB: 512 tokens of 64 pairs), and the fewest
/// tokens of a tile. With tiles of 16 tokens and two heads, 4096 tokens ran at 0.65 to 0.77 of the scale; now at 0.90
/// to 1.07.
inline constexpr std::int64_t heads_major_tile_floats = 144 * kibi, heads_major_tile_tokens = 16;

/// Heads that share the rows of a heads-major tile. 4096 tokens of f32 from memory, ratio to the scale: one head 0.56,
/// two 0.72, eight 1.0, sixteen 0.66. Four where the heads are passed over more than once.
inline constexpr std::int64_t heads_major_group = 4, heads_major_group_from_memory = 8;

/// Bytes of rotated heads that a buffer in L1 holds before streaming stores write them. Head by head takes up to 1.1 of
/// the time. A longer head is not streamed.
inline constexpr std::int64_t streamed_bytes = 4 * kibi;

/// Tokens of a table whose rows are written together: starting a run of 16 costs 7 %, and 64 rows fill L1.
inline constexpr std::int64_t table_run_tokens = 64;

}  // namespace ropewalk::cpu::tuning
