// Kernel of a rotation: one per element type, layout and instruction set.
#pragma once

#include "ropewalk/cpu/head_loops.hpp"
#include "ropewalk/cpu/kernel_f64.hpp"
#include "ropewalk/cpu/traversal/alternating.hpp"
#include "ropewalk/cpu/traversal/heads_major.hpp"
#include "ropewalk/cpu/traversal/per_token.hpp"
#include "ropewalk/cpu/traversal/streaming.hpp"

namespace ropewalk::cpu {

namespace detail {

/// Runs the traversal that choose_loop() chose.
template <class A>
void traverse(const rotate_kernel& kernel, const rotate_params& params, std::int64_t begin, std::int64_t end,
              float* scratch) {
    token_range<A> range{kernel, params, begin, end, scratch};
    switch (params.loop.order) {
        case traversal::per_token:
            return per_token<A>::run(range);
        case traversal::heads_major:
            return heads_major<A>::run(range);
        case traversal::alternating:
            return alternating<A>::run(range);
        case traversal::streaming:
            return streaming<A>::run(range);
    }
}

template <class T, class L, class A>
void run_kernel(const rotate_params& params, std::int64_t begin, std::int64_t end, float* scratch);

}  // namespace detail

/// The kernel of elements T, layout L and instruction set A.
template <class T, class L, class A>
inline constexpr rotate_kernel kernel_of{
    .run = detail::run_kernel<T, L, A>,
    .by_columns = detail::head_loops<T, L, A>::by_columns,
    .by_heads = detail::head_loops<T, L, A>::by_heads,
    .make_rows = detail::make_rows<A>,
    .arrange = detail::row_is_natural<T, L> ? nullptr : detail::head_loops<T, L, A>::arrange,
    .element_bytes = sizeof(T),
    .block_pairs = detail::head_loops<T, L, A>::main_block::pairs,
    .max_held = detail::head_loops<T, L, A>::max_held,
    .interleaved = std::is_same_v<L, interleaved>,
};

/// That of double has no SIMD and is the same for every A.
template <class L, class A>
inline constexpr rotate_kernel kernel_of<double, L, A> = detail::kernel_of_f64<L>;

template <class T, class L, class A>
void detail::run_kernel(const rotate_params& params, std::int64_t begin, std::int64_t end, float* scratch) {
    traverse<A>(kernel_of<T, L, A>, params, begin, end, scratch);
}

}  // namespace ropewalk::cpu
