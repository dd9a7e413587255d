// Parameters of a kernel that re-encodes cached keys: plain data by value.
#pragma once

#include "ropewalk/gpu/fused_params.hpp"

namespace ropewalk::gpu {

/// Parameters of a re-encoding, except the rates. Lanes of a head are the innermost dimension of the thread index, then
/// groups of heads, then tokens. All lanes of a warp run to the end, because they take part in shuffles.
struct rerotate_cache_kernel_base {
    ropewalk::rotate_params rotation{};  ///< see rotate_kernel_base
    fused_heads keys{};                  ///< chunks outside the rotary part exist in i8 caches only
    cache_sink cache{};                  ///< read and written
    slot_reader slots{};
    std::int64_t threads = 0;                  ///< a multiple of the lanes of a warp
    std::int64_t items = 0;                    ///< groups of heads of all tokens
    std::int64_t tokens = 0;                   ///< per batch row
    ropewalk::detail::index_splitter split{};  ///< of a thread's index: rows, tokens, groups, lanes
    std::int32_t lanes = 1;                    ///< per head; a power of two in i8 caches
    std::int32_t steps = 0;                    ///< of Body::heads_in_flight heads each
};

/// Parameters of a kernel that re-encodes cached keys.
template <class Rates>
struct rerotate_cache_kernel_params : rerotate_cache_kernel_base {
    Rates rates;
};

/// Elements per access for elements of `size` bytes.
constexpr int rerotate_cache_elements(int size, bool wide) { return wide ? 16 / size : 1; }

/// Chunks per lane, so that a warp holds an int8 head of 1024 elements, or of 256 without wide accesses.
constexpr int rerotate_cache_chunks(int size, bool wide) { return size == 1 && !wide ? 4 : 1; }

/// Heads that a lane loads at once: 64 bytes in wide accesses.
inline constexpr int rerotate_cache_heads = 2;

}  // namespace ropewalk::gpu
