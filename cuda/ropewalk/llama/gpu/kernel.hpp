// Kernels as plain data: parameters, number of threads, and the body that a device or the host executes.
#pragma once

#include <cstdint>
#include <type_traits>

#include "ropewalk/gpu/plan.hpp"
#include "ropewalk/llama/gpu/lanes.hpp"

namespace ropewalk::llama::gpu {

namespace detail {
using ropewalk::gpu::detail::divide_up, ropewalk::gpu::detail::allows_access;
}  // namespace detail

/// Base of the parameters of every kernel. with_body(params, f) calls f(std::type_identity<Body>), where
/// Body::run<Lanes, Memory>(params, index) executes the lanes [index, index + Lanes::width).
struct launch_size {
    std::int64_t threads = 0;  ///< whole warps; 0: nothing to launch

    constexpr void set_warps(std::int64_t warps) { threads = warps * warp_lanes; }
    constexpr void set_items(std::int64_t items) { set_warps(detail::divide_up(items, warp_lanes)); }
};

/// Base of the parameters of kernels with one thread per chunk of lane_elements of a row.
struct chunk_launch : launch_size {
    std::int64_t chunks = 1;  ///< per row
    bool wide = false;        ///< 16-byte accesses

    constexpr void set_chunks(std::int64_t rows, std::int64_t columns) {
        chunks = detail::divide_up(columns, lane_elements);
        set_items(rows * chunks);
    }
};

/// Blocks of 128 threads that the registers of a multiprocessor must hold. Without such a bound the compiler spills a
/// few registers to hold one more block.
inline constexpr int usual_blocks = 8;

/// The body of parameters with a member run_lanes<Wide, Lanes, Memory>(index), or run_thread<Wide, Memory>(index) if
/// threads work independently.
template <bool Wide>
struct member_body {
    static constexpr int blocks_resident = usual_blocks;

    template <class Lanes, class Memory, class Params>
    static RW_HD RW_INLINE void run(const Params& params, std::int64_t index) {
        if constexpr (requires { params.template run_lanes<Wide, Lanes, Memory>(index); }) {
            params.template run_lanes<Wide, Lanes, Memory>(index);
        } else {
            for (int i = 0; i < Lanes::width; ++i) params.template run_thread<Wide, Memory>(index + i);
        }
    }
};

template <class Params, class F>
void with_body(const Params& params, const F& f) {
    if constexpr (requires { params.wide; }) {
        if (params.wide) return f(std::type_identity<member_body<true>>{});
    }
    f(std::type_identity<member_body<false>>{});
}

}  // namespace ropewalk::llama::gpu
