// Parameters of a rotation kernel: plain data by value, steps included, so that a call uploads nothing.
#pragma once

#include <cstdint>

#include "ropewalk/core/compiler.hpp"
#include "ropewalk/core/divide.hpp"
#include "ropewalk/rotation/params.hpp"

namespace ropewalk::gpu {

/// Capacities of kernel parameters, in pairs: of a plain rotation, of any other call, and of fused kernels for narrow
/// heads (fused kernels hold a whole head in registers).
inline constexpr int plain_pairs = 256, max_pairs = 512, few_pairs = 128;

/// The steps of an encoding by value. Pair j follows the position on axis[j] of its token.
template <int Capacity>
struct steps_by_value {
    std::uint64_t step[Capacity];
    std::uint8_t axis[Capacity];
};

/// Rates of a rotation without magnitudes and without a source encoding.
template <int Capacity>
struct plain_rates {
    static constexpr int capacity = Capacity;
    static constexpr bool full = false;
    steps_by_value<Capacity> target;
};

/// Rates with xPos magnitudes and re-rotation.
template <int Capacity>
struct full_rates {
    static constexpr int capacity = Capacity;
    static constexpr bool full = true;
    steps_by_value<Capacity> target, source;
    std::uint64_t magnitude_rates[Capacity], source_magnitude_rates[Capacity];
};

/// The heads of queries, keys or values. Strides are in bytes.
struct heads_params {
    const void* in = nullptr;
    void* out = nullptr;
    std::int64_t in_batch = 0, in_token = 0, in_head = 0;
    std::int64_t out_batch = 0, out_token = 0, out_head = 0;
    std::int32_t heads = 0;
    std::int32_t heads_per_thread = 1;  ///< or one less
    std::int32_t groups = 0;
    std::int64_t in_step = 0, out_step = 0;  ///< from a head of a group to the next one: groups · in_head

    /// The number of heads of group g: g, g + groups, g + 2 · groups, … Neighbouring groups thereby access neighbouring
    /// memory at the same time.
    [[nodiscard]] RW_HD RW_INLINE int heads_of_group(std::int32_t g) const {
        return g + (heads_per_thread - 1) * groups < heads ? heads_per_thread : heads_per_thread - 1;
    }
};

/// Parameters of a rotation kernel, except the rates. A thread rotates (or copies) one chunk of a group of heads of one
/// token. Chunks are the innermost dimension of the thread index, then groups of heads, those of q first, then tokens.
struct rotate_kernel_base {
    ropewalk::rotate_params rotation{};  ///< its steps and rates are in host memory: kernels read `rates` instead
    heads_params side[2];                ///< q, k
    std::int64_t threads = 0;
    ropewalk::detail::index_splitter split{};  ///< of a thread's index: rows, tokens, groups, chunks
    std::int32_t rotating_chunks = 0;          ///< per head
    std::int32_t chunks = 0;                   ///< per head, those that only copy included
    std::int32_t q_groups = 0;                 ///< groups of query heads
    std::int32_t groups = 0;                   ///< groups of query and key heads
};

/// Parameters of a rotation kernel.
template <class Rates>
struct rotate_kernel_params : rotate_kernel_base {
    Rates rates;
};

}  // namespace ropewalk::gpu
