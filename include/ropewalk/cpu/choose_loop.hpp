// Choice of the traversal of a rotation, from its sizes and strides.
#pragma once

#include <algorithm>

#include "ropewalk/cpu/params.hpp"

namespace ropewalk::cpu {

namespace detail {

inline namespace RW_ISA {

/// Bytes that the rotation reads.
inline std::int64_t bytes_of(const rotate_params& params) {
    return (params.q_in.elements() + params.k_in.elements()) * static_cast<std::int64_t>(size_of(params.any().type));
}

/// Returns whether the output is separate from the input and each of its heads fills whole, aligned cache lines.
inline bool takes_streaming_stores(const tensor& in, const tensor& out) {
    if (!in.exists()) return true;
    const auto bytes = [&](std::int64_t elements) { return elements * static_cast<std::int64_t>(size_of(out.type)); };
    const auto whole = [&](std::int64_t elements) { return bytes(elements) % tuning::line_bytes == 0; };
    return in.data != out.data && reinterpret_cast<std::uintptr_t>(out.data) % tuning::line_bytes == 0 &&
           whole(out.head_dim) && bytes(out.head_dim) <= tuning::streamed_bytes && whole(out.stride_head) &&
           whole(out.stride_token) && whole(out.stride_batch);
}

/// Returns whether all tokens have the same cosines and sines.
inline bool share_a_row(const rotate_params& params) {
    const auto shifts = [](const rotation_term& term) {
        return term.steps == nullptr || term.positions.kind == positions::kind::shift;
    };
    const bool by_token = params.table.exists() && params.table.order == cos_sin_table::rows_are::by_token;
    return shifts(params.target) && shifts(params.source) && !by_token;
}

}  // namespace RW_ISA
}  // namespace detail

inline namespace RW_ISA {

/// Returns the traversal of a rotation, with its tile. Made once per call, where sizes and strides are known.
///
/// Non-temporal stores pay only when data exceeds the cache and the pages of the output are mapped already.
inline loop_choice choose_loop(const rotate_params& params, const tuning_profile& tuning, bool fresh_output = false) {
    const tensor& t = params.any();
    loop_choice loop;
    loop.size = footprint_of(detail::bytes_of(params), tuning);
    loop.bytes_per_thread = tuning.bytes_per_thread;
    loop.shared_row = detail::share_a_row(params);
    const bool from_memory = loop.size == footprint::memory;
    const auto length = [](std::int64_t stride) { return stride < 0 ? -stride : stride; };
    loop.heads_major = t.heads > 1 && t.tokens > 1 && length(t.stride_head) > length(t.stride_token);
    const bool both = params.q_in.exists() && params.k_in.exists() && params.q_in.heads > 0;
    const bool alone = params.q_in.exists() != params.k_in.exists();

    const std::int64_t head_bytes = 2 * params.pairs * static_cast<std::int64_t>(size_of(t.type));
    if (loop.size == footprint::l2) loop.columns_prefetch.ahead = tuning.l2_prefetch_bytes;
    if (from_memory && tuning.memory_prefetch_bytes > 0)
        loop.heads_prefetch = {tuning.memory_prefetch_bytes,
                               tuning.memory_prefetches_lines != 0 ? head_bytes : tuning::line_bytes};
    loop.by_heads = from_memory && tuning.memory_by_heads != 0;
    loop.group = from_memory ? tuning.heads_major_group_from_memory : tuning.heads_major_group;

    if (from_memory && tuning.streaming_stores != 0 && !fresh_output &&
        detail::takes_streaming_stores(params.q_in, params.q_out) &&
        detail::takes_streaming_stores(params.k_in, params.k_out)) {
        loop.order = traversal::streaming;
    } else if (loop.heads_major) {
        loop.order = traversal::heads_major;
    } else if (from_memory && tuning.alternating_bytes > 0 && (both || alone)) {
        loop.order = traversal::alternating;
        const std::int64_t heads = std::max<std::int64_t>(tuning.alternating_bytes / head_bytes, 1);
        loop.alternating_heads =
            both ? std::max<std::int64_t>(heads * params.k_in.heads / params.q_in.heads, 1) : heads;
        loop.tile = both ? 1 : 2;
        return loop;
    }
    std::int64_t tile = 1;
    if (loop.heads_major) {
        tile = std::max(tuning.heads_major_tile_floats / params.row_floats(), tuning.heads_major_tile_tokens);
    } else if (both && loop.size != footprint::l2) {
        tile = from_memory ? tuning.memory_tile_tokens : tuning.l3_tile_tokens;
    }
    loop.tile = std::min(t.tokens, tile);
    return loop;
}

}  // namespace RW_ISA
}  // namespace ropewalk::cpu
